import { ApolloClient, ApolloLink, gql, HttpLink, InMemoryCache } from '@apollo/client/core/index.js';
import { createPersistedQueryLink } from '@apollo/client/link/persisted-queries/index.js';
import { GraphQLWsLink } from '@apollo/client/link/subscriptions/index.js';
import { createHash } from 'node:crypto';
import { createClient } from 'graphql-ws';
import { OperationTypeNode } from 'graphql';
import WebSocket from 'ws';
import { check, CREATE, EMAIL, LOGIN, ME, PASSWORD, say, URL_HTTP, URL_WS, WATCH, watcher } from './common.mjs';

let token;
let connections = 0;
const sockets = createClient({
  url: URL_WS,
  webSocketImpl: WebSocket,
  connectionParams: () => ({ authorization: `Bearer ${token}` }),
  retryAttempts: 100,
  retryWait: () => new Promise((resolve) => setTimeout(resolve, 100)),
  shouldRetry: () => true,
  on: { connected: () => (++connections > 1 ? setTimeout(() => say('again'), 500) : undefined) },
});
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
    new GraphQLWsLink(sockets),
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
