// What every client does: sign in, query, mutate, subscribe, and go on after the server has been away.
// It says each step on a line of its own; tests/test_clients.py reads along and makes things happen in between.

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

setTimeout(() => check(false, 'too slow'), 60_000).unref();
