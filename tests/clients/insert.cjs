// Inserts logs with the official Node SDK: one alone, then two at once.
const { Portkey } = require("portkey-ai");

const portkey = new Portkey({ apiKey: process.env.GATELOG_KEY, baseURL: process.env.GATELOG_BASE });

function log(traceId) {
  return {
    request: { url: "https://api.openai.com/v1/chat/completions", body: { model: "gpt-4o", messages: [] } },
    response: {
      status: 200,
      body: { usage: { prompt_tokens: 9, completion_tokens: 4, total_tokens: 13 } },
      response_time: 20,
    },
    metadata: { traceId },
  };
}

async function main() {
  await portkey.logs.create(log("t-2"));
  await portkey.logs.create([log("t-3"), log("t-4")]);
  console.log(Object.getOwnPropertyNames(Object.getPrototypeOf(portkey.logs)).join());
}

main()
  .then(() => process.exit(0))
  .catch((error) => {
    console.error(error);
    process.exit(1);
  });
