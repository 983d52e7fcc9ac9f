// Calls every method of the official Node SDK's log exports and prints what it answers.
const { Portkey } = require("portkey-ai");

const { filters, narrower, fields, large } = JSON.parse(process.env.ASKED);
const { logs } = new Portkey({ apiKey: process.env.GATELOG_KEY, baseURL: process.env.GATELOG_BASE });
const jobs = logs.exports;

// What the SDK adds to an answer stays out of it.
function plain(answer) {
  return JSON.parse(JSON.stringify(answer));
}

async function ended(exportId) {
  for (;;) {
    const item = await jobs.retrieve({ exportId });
    if (item.status !== "in_progress") return item;
    await new Promise((wake) => setTimeout(wake, 50));
  }
}

async function main() {
  const told = {};
  told.methods = Object.getOwnPropertyNames(Object.getPrototypeOf(jobs)).filter((name) => name !== "constructor");
  told.created = await jobs.create({ filters, requestedData: fields, description: "All of it" });
  const exportId = told.created.id;
  told.draft = await jobs.retrieve({ exportId });
  await jobs.create({ filters, workspaceId: "search" });
  told.listed = await jobs.list({});
  told.of_workspace = await jobs.list({ workspaceId: "search" });
  told.of_another = await jobs.list({ workspaceId: "another" });
  told.updated = await jobs.update({ exportId, filters: narrower, requestedData: ["id"] });
  await jobs.update({ exportId, filters, requestedData: fields });
  told.started = await jobs.start({ exportId });
  told.ended = await ended(exportId);
  told.download = await jobs.download({ exportId });
  // Jobs wait for their turn, so the last one cannot have ended yet.
  const ids = [];
  for (let number = 0; number < 6; number++) {
    ids.push((await jobs.create({ filters: large, requestedData: ["id", "request"] })).id);
  }
  for (const id of ids) await jobs.start({ exportId: id });
  told.cancelled = await jobs.cancel({ exportId: ids[5] });
  told.stopped = await jobs.retrieve({ exportId: ids[5] });
  const missing = "00000000-0000-4000-8000-000000000000";
  told.missing = await jobs.retrieve({ exportId: missing }).catch((error) => error.status);
  console.log(JSON.stringify(plain(told)));
}

main()
  .then(() => process.exit(0))
  .catch((error) => {
    console.error(error);
    process.exit(1);
  });
