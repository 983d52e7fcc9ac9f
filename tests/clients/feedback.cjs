// Calls every feedback method of the official Node SDK and prints what it answers.
const { Portkey } = require("portkey-ai");

const { feedback } = new Portkey({ apiKey: process.env.GATELOG_KEY, baseURL: process.env.GATELOG_BASE });

async function main() {
  const told = {};
  told.methods = Object.getOwnPropertyNames(Object.getPrototypeOf(feedback)).filter((name) => name !== "constructor");
  told.one = await feedback.create({ traceID: "t-1", value: 1, weight: 0.5, metadata: { why: "short" } });
  told.many = await feedback.create([
    { traceID: "t-1", value: -10, weight: 0.25 },
    { traceID: "t-3", value: 10 },
  ]);
  const [id] = told.one.feedback_ids;
  told.updated = await feedback.update({ feedbackID: id, value: 5 });
  told.misspelt = await feedback.update({ feedbackId: id, value: 5 }).catch((error) => error.status);
  console.log(JSON.stringify(told));
}

main()
  .then(() => process.exit(0))
  .catch((error) => {
    console.error(error);
    process.exit(1);
  });
