import { createClient } from 'graphql-sse';
import { check, CREATE, EMAIL, LOGIN, ME, PASSWORD, say, URL_HTTP, WATCH, watcher } from './common.mjs';

let token;
const client = createClient({
  url: URL_HTTP,
  headers: () => (token ? { authorization: `Bearer ${token}` } : {}),
  retryAttempts: 100,
  retry: () => new Promise((resolve) => setTimeout(resolve, 100)),
  onMessage: ({ data }) => data,
});

async function once(query, variables) {
  for await (const answer of client.iterate({ query, variables })) {
    check(!answer.errors, JSON.stringify(answer.errors));
    return answer.data;
  }
}

token = (await once(LOGIN, { email: EMAIL, password: PASSWORD })).login.session.accessToken;
check((await once(ME)).me.email === EMAIL, 'me');
say('query');
check((await once(CREATE, { name: 'Made by graphql-sse' })).createAgent.agent.id, 'create');
say('mutation');

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
setTimeout(() => say('subscribed'), 500);
