// Inserts one log with the official Node SDK.
const { Portkey } = require("portkey-ai");

const portkey = new Portkey({ apiKey: process.env.GATELOG_KEY, baseURL: process.env.GATELOG_BASE });
portkey.logs
  .create({
    request: { url: "https://api.openai.com/v1/chat/completions", body: { model: "gpt-4o", messages: [] } },
    response: {
      status: 200,
      body: { usage: { prompt_tokens: 9, completion_tokens: 4, total_tokens: 13 } },
      response_time: 20,
    },
    metadata: { traceId: "t-2" },
  })
  .then(() => process.exit(0))
  .catch((error) => {
    console.error(error);
    process.exit(1);
  });
