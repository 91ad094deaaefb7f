import { defineConfig } from "vite";

// The page is served at /graphql and its files under /playground.
export default defineConfig({
  base: "/playground/",
  build: { outDir: "dist", chunkSizeWarningLimit: 8000 },
});
