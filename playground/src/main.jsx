import "graphiql/setup-workers/vite";
import "graphiql/style.css";
import "./page.css";

import { createGraphiQLFetcher } from "@graphiql/toolkit";
import { GraphiQL } from "graphiql";
import { createRoot } from "react-dom/client";

import { tabs } from "./examples.js";

const socket = new URL("/graphql", location.href);
socket.protocol = socket.protocol.replace("http", "ws");

// Signing in leaves a cookie, which the browser shows with each request and with each new socket. A socket lives as long
// as a subscription, so that the next one is opened by whoever is signed in then.
const fetcher = createGraphiQLFetcher({ url: "/graphql", subscriptionUrl: socket.href });

createRoot(document.getElementById("root")).render(<GraphiQL fetcher={fetcher} defaultTabs={tabs} />);
