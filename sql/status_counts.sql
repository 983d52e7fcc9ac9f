-- purpose: number of records with each Status label, over time and by model
-- param from: timestamp = null; start of the time frame, inclusive; null starts at the first record
-- param to: timestamp = null; end of the time frame, exclusive; null ends at the last record
-- param organisation_id: text = null; one organisation; null selects all that the caller may see
-- param ai_model: text = null; one model, by its canonical name or as logged; null selects all
-- param bucket: text in hour|day|week|month|year = day; width of a time bucket, UTC; weeks begin on Monday
-- column bucket: timestamp; start of the time bucket, UTC
-- column model: text; canonical name of the model that answered, one for all spellings
-- column ai_model: text; its logged names, separated by commas
-- column kind: text; kind of the label: cache, retry, fallback or loadbalance
-- column label: text; the label, as the report `status` gives it
-- column records: integer; records with that label; each record counts once in each kind

with
-- Groups records by all four labels at once: one pass over the table, and few rows to unpivot.
labelled as (
    select
        date_trunc($bucket, created_at) as bucket,
        model, ai_model, cache_label, retry_label, fallback_label, loadbalance_label,
        count(*) as records
    from status
    where ($from is null or created_at >= $from)
      and ($to is null or created_at < $to)
      and ($organisation_id is null or organisation_id = $organisation_id)
      and ($ai_model is null or ai_model = $ai_model or model = $ai_model)
    group by 1, model, ai_model, cache_label, retry_label, fallback_label, loadbalance_label
),
-- The kinds of label, in the order of the Status column.
kinds as (
    select * from (values (1, 'cache'), (2, 'retry'), (3, 'fallback'), (4, 'loadbalance')) as kinds (place, kind)
),
-- One row per label: each group of `labelled` appears once for each kind.
turned as (
    select
        bucket, model, ai_model, place, kind,
        case kind
            when 'cache' then cache_label
            when 'retry' then retry_label
            when 'fallback' then fallback_label
            else loadbalance_label
        end as label,
        records
    from labelled cross join kinds
)
select
    bucket,
    model,
    cast(string_agg(distinct ai_model, ', ' order by ai_model) as text) as ai_model,
    kind,
    label,
    sum(records) as records
from turned
group by bucket, model, place, kind, label
order by bucket, model, place, label
