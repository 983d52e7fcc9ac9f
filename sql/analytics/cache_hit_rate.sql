-- purpose: cache hits over time, and the money that they saved
-- column whole: integer; 1 for the whole time frame, 0 for one time bucket
-- column bucket: timestamp; start of the time bucket, UTC
-- column total: integer; answers from the cache
-- column simple_hits: integer; answers from the simple cache
-- column semantic_hits: integer; answers from the semantic cache
-- column rate: float; hits per 100 cache lookups
-- column cumulative_simple_cache_savings: float; cost that the simple hits saved up to here, US cents
-- column cumulative_semantic_cache_savings: float; cost that the semantic hits saved up to here, US cents

with
-- One row per bucket and one for all.
buckets as (
    select
        cast(grouping(bucket) as int) as whole,
        bucket,
        count(*) filter (where upper(cache_status) = 'HIT') as simple_hits,
        count(*) filter (where upper(cache_status) = 'SEMANTIC HIT') as semantic_hits,
        count(*) filter (where upper(cache_status) in ('MISS', 'SEMANTIC MISS')) as misses,
        coalesce(sum(saved) filter (where upper(cache_status) = 'HIT'), 0.0) as simple_saved,
        coalesce(sum(saved) filter (where upper(cache_status) = 'SEMANTIC HIT'), 0.0) as semantic_saved
    from calls
    group by grouping sets ((bucket), ())
)
select
    whole,
    bucket,
    simple_hits + semantic_hits as total,
    simple_hits,
    semantic_hits,
    100.0 * (simple_hits + semantic_hits) / nullif(simple_hits + semantic_hits + misses, 0) as rate,
    sum(simple_saved) over (partition by whole order by bucket) as cumulative_simple_cache_savings,
    sum(semantic_saved) over (partition by whole order by bucket) as cumulative_semantic_cache_savings
from buckets
order by whole, bucket
