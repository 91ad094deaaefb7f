import { check, CREATE, EMAIL, follow, LOGIN, ME, once, PASSWORD, say, sockets } from './common.mjs';

let token;
const nobody = sockets(() => token);
token = (await once(nobody, LOGIN, { email: EMAIL, password: PASSWORD })).login.session.accessToken;
await nobody.dispose();
const client = sockets(() => token);
check((await once(client, ME)).me.email === EMAIL, 'me');
say('query');
check((await once(client, CREATE, { name: 'Made by graphql-ws' })).createAgent.agent.id, 'create');
say('mutation');

follow(client);
await once(client, ME);
say('subscribed');
