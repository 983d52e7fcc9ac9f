-- purpose: figures of each provider, model, status code, API key, config, workspace, virtual key or prompt
-- column group_key: text; value that the group shares
-- column requests: integer; requests
-- column cost: float; money spent, US cents; null if no cost is known
-- column total_tokens: integer; tokens of requests and responses
-- column avg_tokens: float; mean tokens of a request with known tokens
-- column avg_input_tokens: float; mean tokens sent
-- column avg_output_tokens: float; mean tokens received
-- column avg_latency: float; mean response time, ms
-- column p95_latency: float; 95 of 100 requests answered within, ms
-- column p99_latency: float; 99 of 100 requests answered within, ms
-- column success_rate: float; successes per 100 requests with a known outcome
-- column error_count: integer; failed requests
-- column cache_hit_rate: float; hits per 100 cache lookups
-- column first_seen: timestamp; oldest of the requests, UTC
-- column last_seen: timestamp; newest of the requests, UTC

select
    group_key,
    count(*) as requests,
    sum(spent) as cost,
    sum(total_units) as total_tokens,
    avg(total_units) as avg_tokens,
    avg(req_units) as avg_input_tokens,
    avg(res_units) as avg_output_tokens,
    avg(response_time) as avg_latency,
    approx_percentile_cont(0.95) within group (order by cast(response_time as double)) as p95_latency,
    approx_percentile_cont(0.99) within group (order by cast(response_time as double)) as p99_latency,
    100.0 * count(*) filter (where succeeded) / nullif(count(succeeded), 0) as success_rate,
    count(*) filter (where not succeeded) as error_count,
    100.0 * count(*) filter (where hit)
        / nullif(count(*) filter (where upper(cache_status) in ('HIT', 'SEMANTIC HIT', 'MISS', 'SEMANTIC MISS')), 0)
        as cache_hit_rate,
    min(created_at) as first_seen,
    max(created_at) as last_seen
from calls
where group_key is not null
group by group_key
