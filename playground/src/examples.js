// The tabs that a newcomer finds open.

const signIn = `# Sign in first: the demo's accounts are admin@agenthub.com / admin123 and test@example.com / testpass123.
# The browser keeps the session as a cookie; the other tabs work from then on.
mutation SignIn {
  login(input: { email: "admin@agenthub.com", password: "admin123" }) {
    session { expiresAt user { name role } }
  }
}
`;

const agents = `# The busiest agents, with their last week.
query Busiest {
  agents(first: 5, order: { field: TOTAL_TOKENS, direction: DESC }) {
    totalCount
    pageInfo { hasNextPage endCursor }
    nodes {
      name
      discipline
      usage { totalTokens cost users conversations }
      rating { average count mine }
      usageTimeline(days: 7) { day totalTokens cost }
    }
  }
}
`;

const alerts = `# Alerts as they are raised. Run this, then run the next tab in another window.
# Give \`after: "<cursor>"\` to begin after an alert that you know.
subscription Watch {
  thresholdAlerts {
    cursor
    agent { name }
    metric
    percent
    value
    threshold
    raisedAt
  }
}
`;

const report = `# Report usage. The id makes it count once: run it twice and it is a duplicate.
# A new agent with this much raises an alert at once.
mutation Report {
  collectUsage(
    input: {
      source: "playground"
      events: [
        { id: "try-1", agent: { name: "Playground Agent" }, model: "gpt-5-mini", promptTokens: 150000, completionTokens: 900 }
      ]
    }
  ) {
    accepted
    duplicates
    items { index outcome code message }
  }
}
`;

export const tabs = [signIn, agents, alerts, report].map((query) => ({ query }));
