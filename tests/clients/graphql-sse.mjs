import { createClient } from 'graphql-sse';
import { check, CREATE, EMAIL, follow, LOGIN, ME, once, PASSWORD, say, URL_HTTP } from './common.mjs';

let token;
const client = createClient({
  url: URL_HTTP,
  headers: () => (token ? { authorization: `Bearer ${token}` } : {}),
  retryAttempts: 100,
  retry: () => new Promise((resolve) => setTimeout(resolve, 100)),
});

token = (await once(client, LOGIN, { email: EMAIL, password: PASSWORD })).login.session.accessToken;
check((await once(client, ME)).me.email === EMAIL, 'me');
say('query');
check((await once(client, CREATE, { name: 'Made by graphql-sse' })).createAgent.agent.id, 'create');
say('mutation');

follow(client);
setTimeout(() => say('subscribed'), 500);
