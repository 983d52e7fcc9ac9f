// Calls every analytics method of the official Node SDK and prints what it answers.
const { Portkey } = require("portkey-ai");

const { frame, groups, columns } = JSON.parse(process.env.ASKED);
const { analytics } = new Portkey({ apiKey: process.env.GATELOG_KEY, baseURL: process.env.GATELOG_BASE });

// The methods that a resource has beside those of every resource.
function methods(resource) {
  return Object.getOwnPropertyNames(Object.getPrototypeOf(resource)).filter((name) => name !== "constructor");
}

async function main() {
  const told = { graphs: {}, grouped: {}, methods: methods(analytics.groups), summaries: methods(analytics.summary) };
  for (const name of methods(analytics.graphs)) {
    told.graphs[name] = await analytics.graphs[name](frame);
  }
  told.users = await analytics.groups.users({ ...frame, order_by: "user", order_by_type: "asc" });
  told.models = await analytics.groups.aiModels(frame);
  told.workspaces = await analytics.groups.workspaces(frame);
  told.metadata = await analytics.groups.metadata("team", { ...frame, current_page: 0, page_size: 5 });
  for (const by of groups) {
    told.grouped[by] = await analytics.groups.groupedData(by, { ...frame, columns, include_total: true });
  }
  told.cache = await analytics.summary.cache(frame);
  console.log(JSON.stringify(told));
}

main()
  .then(() => process.exit(0))
  .catch((error) => {
    console.error(error);
    process.exit(1);
  });
