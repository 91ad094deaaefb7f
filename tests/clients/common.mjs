// What every client does: sign in, query, mutate, subscribe, and go on after the server has been away.
// It says each step on a line of its own; tests/test_clients.py reads along and makes things happen in between.

import { createClient } from 'graphql-ws';
import WebSocket from 'ws';

export const [, , URL_HTTP, EMAIL, PASSWORD] = process.argv;
export const URL_WS = URL_HTTP.replace(/^http/, 'ws');

export const LOGIN = /* GraphQL */ `
  mutation Login($email: String!, $password: String!) {
    login(input: { email: $email, password: $password }) { session { accessToken } }
  }
`;
export const ME = 'query Me { me { id email } }';
export const CREATE = /* GraphQL */ `
  mutation Create($name: String!) {
    createAgent(input: { name: $name, discipline: CREATIVE }) { agent { id name } }
  }
`;
export const WATCH = /* GraphQL */ `
  subscription Watch($after: String) { thresholdAlerts(after: $after) { id cursor agent { id name } } }
`;

export function say(...words) {
  console.log(words.join(' '));
}

export function check(condition, message) {
  if (!condition) {
    console.error(message);
    process.exit(1);
  }
}

// Takes what comes: says each alert, and ends after the second.
export function watcher() {
  let count = 0;
  return (alert) => {
    say('alert', alert.agent.name);
    if (++count === 2) process.exit(0);
  };
}

// A client for sockets that comes back whatever closed them, and says so.
export function sockets(token) {
  let connections = 0;
  return createClient({
    url: URL_WS,
    webSocketImpl: WebSocket,
    connectionParams: () => (token() ? { authorization: `Bearer ${token()}` } : undefined),
    retryAttempts: 100,
    retryWait: () => new Promise((resolve) => setTimeout(resolve, 100)),
    shouldRetry: () => true,
    on: { connected: () => (++connections > 1 ? setTimeout(() => say('again'), 500) : undefined) },
  });
}

// Runs one operation of a client that iterates.
export async function once(client, query, variables) {
  for await (const answer of client.iterate({ query, variables })) {
    check(!answer.errors, JSON.stringify(answer.errors));
    return answer.data;
  }
}

// Watches with a client that sends its request again after a break. What it sends is read from `variables`, so that
// alerts which came meanwhile come first.
export function follow(client) {
  const variables = { after: null };
  const take = watcher();
  client.subscribe(
    { query: WATCH, variables },
    {
      next: ({ data, errors }) => {
        check(!errors, JSON.stringify(errors));
        variables.after = data.thresholdAlerts.cursor;
        take(data.thresholdAlerts);
      },
      error: (error) => check(false, `error ${error}`),
      complete: () => check(false, 'complete'),
    },
  );
}

setTimeout(() => check(false, 'too slow'), 60_000).unref();
