import { createClient } from 'graphql-ws';
import WebSocket from 'ws';
import { check, CREATE, EMAIL, LOGIN, ME, PASSWORD, say, URL_WS, WATCH, watcher } from './common.mjs';

let token;
const open = () =>
  createClient({
    url: URL_WS,
    webSocketImpl: WebSocket,
    connectionParams: () => (token ? { authorization: `Bearer ${token}` } : undefined),
    retryAttempts: 100,
    retryWait: () => new Promise((resolve) => setTimeout(resolve, 100)),
    shouldRetry: () => true,
  });

async function once(client, query, variables) {
  for await (const answer of client.iterate({ query, variables })) {
    check(!answer.errors, JSON.stringify(answer.errors));
    return answer.data;
  }
}

const nobody = open();
token = (await once(nobody, LOGIN, { email: EMAIL, password: PASSWORD })).login.session.accessToken;
await nobody.dispose();
const client = open();
check((await once(client, ME)).me.email === EMAIL, 'me');
say('query');
check((await once(client, CREATE, { name: 'Made by graphql-ws' })).createAgent.agent.id, 'create');
say('mutation');

// What is sent again after a break is read from here: alerts that came meanwhile come first.
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
await once(client, ME);
say('subscribed');
