import { cacheExchange, Client, fetchExchange, subscriptionExchange } from '@urql/core';
import { check, CREATE, EMAIL, LOGIN, ME, PASSWORD, say, sockets, URL_HTTP, WATCH, watcher } from './common.mjs';

let token;
const sending = sockets(() => token);
const client = new Client({
  url: URL_HTTP,
  preferGetMethod: false,
  fetchOptions: () => ({ headers: token ? { authorization: `Bearer ${token}` } : {} }),
  exchanges: [
    cacheExchange,
    subscriptionExchange({
      forwardSubscription: ({ query, variables }) => ({
        subscribe: (sink) => ({ unsubscribe: sending.subscribe({ query, variables }, sink) }),
      }),
    }),
    fetchExchange,
  ],
});

async function done(operation) {
  const { data, error } = await operation.toPromise();
  check(!error, String(error));
  return data;
}

const signedIn = await done(client.mutation(LOGIN, { email: EMAIL, password: PASSWORD }));
token = signedIn.login.session.accessToken;
check((await done(client.query(ME, {}))).me.email === EMAIL, 'me');
say('query');
check((await done(client.mutation(CREATE, { name: 'Made by urql' }))).createAgent.agent.id, 'create');
say('mutation');

const take = watcher();
client.subscription(WATCH, { after: null }).subscribe(({ data, error }) => {
  check(!error, String(error));
  take(data.thresholdAlerts);
});
setTimeout(() => say('subscribed'), 1000);
