import { ApolloClient, ApolloLink, gql, HttpLink, InMemoryCache } from '@apollo/client/core/index.js';
import { createPersistedQueryLink } from '@apollo/client/link/persisted-queries/index.js';
import { GraphQLWsLink } from '@apollo/client/link/subscriptions/index.js';
import { createHash } from 'node:crypto';
import { OperationTypeNode } from 'graphql';
import { check, CREATE, EMAIL, LOGIN, ME, PASSWORD, say, sockets, URL_HTTP, WATCH, watcher } from './common.mjs';

let token;
// It sends a hash first, and the document once it has read that hashes are not known here.
const hashes = createPersistedQueryLink({ sha256: (text) => createHash('sha256').update(text).digest('hex') });
const http = new HttpLink({ uri: URL_HTTP, headers: {}, fetch: (url, options) => fetch(url, withToken(options)) });
const withToken = (options) => ({
  ...options,
  headers: { ...options.headers, ...(token ? { authorization: `Bearer ${token}` } : {}) },
});
const client = new ApolloClient({
  cache: new InMemoryCache(),
  link: ApolloLink.split(
    ({ operationType }) => operationType === OperationTypeNode.SUBSCRIPTION,
    new GraphQLWsLink(sockets(() => token)),
    ApolloLink.from([hashes, http]),
  ),
});

const signedIn = await client.mutate({ mutation: gql(LOGIN), variables: { email: EMAIL, password: PASSWORD } });
token = signedIn.data.login.session.accessToken;
check((await client.query({ query: gql(ME) })).data.me.email === EMAIL, 'me');
say('query');
check((await client.mutate({ mutation: gql(CREATE), variables: { name: 'Made by Apollo' } })).data, 'create');
say('mutation');

const take = watcher();
client.subscribe({ query: gql(WATCH), variables: { after: null } }).subscribe({
  next: ({ data, error }) => {
    check(!error, String(error));
    take(data.thresholdAlerts);
  },
  error: (error) => check(false, `error ${error}`),
  complete: () => check(false, 'complete'),
});
setTimeout(() => say('subscribed'), 1000);
