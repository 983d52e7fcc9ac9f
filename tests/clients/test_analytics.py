"""Every analytics method of the official Portkey SDKs, unmodified, over records whose figures are known."""

import inspect
import json
import os
import subprocess
from pathlib import Path

import pytest
from portkey_ai import Portkey
from portkey_ai.api_resources.apis import analytics

FRAME = {"time_of_generation_min": "2026-11-01T00:00:00+00:00", "time_of_generation_max": "2026-11-03"}
GROUPS = ["ai_service", "model", "status_code", "api_key", "config", "workspace", "provider", "prompt"]
COLUMNS = "cost,total_tokens,avg_tokens,avg_input_tokens,avg_output_tokens,avg_latency,p95_latency,p99_latency," \
          "success_rate,error_count,cache_hit_rate,last_seen,first_seen"


def record(number):
    failed = number % 4 == 3
    return {
        "id": f"r-{number}", "created_at": f"2026-11-0{number % 2 + 1}T10:{number:02}:00Z", "ai_org": "openai",
        "ai_model": "gpt-4o", "response_status_code": 500 if failed else 200, "is_success": 0 if failed else 1,
        "response_time": 100, "req_units": 6, "res_units": 4, "total_units": 10, "cost": 0.25, "cost_currency": "USD",
        "cache_status": "HIT" if number % 4 == 0 else "MISS", "retry_success_count": 1 if number == 1 else 0,
        "mode": "SINGLE", "user_id": f"u-{number % 3}", "trace_id": f"t-{number}", "virtual_key": "main",
        "config": "pc-1", "prompt_slug": "pp-1", "api_key_id": "k-1", "workspace_slug": "search",
        "metadata": {"_user": f"u-{number % 3}", "team": "search"},
    }


@pytest.fixture
def known(server):
    lines = "".join(json.dumps(record(number)) + "\n" for number in range(12))
    receipt = json.loads(server.request("POST", "/v1/ingest", lines.encode()))
    assert receipt["accepted"] == 12, receipt
    return server


def check_graphs(graphs):
    """`graphs`: by the end of the path in the specification."""
    for name, graph in graphs.items():
        assert graph["object"] == "analytics-graph", name
        assert isinstance(graph["summary"], dict) and isinstance(graph["data_points"], list), name
    summaries = {
        "requests": {"total": 12}, "cost": {"total": 2.25, "avg": 0.1875}, "tokens": {"total": 120, "avg": 10},
        "latency": {"avg": 100, "p50": 100, "p90": 100, "p99": 100}, "users": {"total": 3},
        "users/requests": {"total": 12, "unique": 3, "avg": 4}, "errors": {"total": 3}, "errors/rate": {"rate": 25},
        "errors/stacks": {"total": 3}, "errors/status-codes": {"total_errors": 3, "unique_error_codes": 1},
        "requests/rescued": {"retry": 1, "fallback": 0}, "cache/hit-rate": {"total": 3, "rate": 25}, "cache/latency": {},
        "feedbacks": {"total": 0}, "feedbacks/scores": {"total": 0}, "feedbacks/weighted": {"avg": None},
        "feedbacks/ai-models": {},
    }
    assert {name: graph["summary"] for name, graph in graphs.items()} == summaries
    points = graphs["requests"]["data_points"]
    assert graphs["requests"]["bucket"] == "hour" and len(points) == 49
    assert points[10] == {"timestamp": "2026-11-01T10:00:00.000Z", "total": 6}
    stacks = graphs["errors/stacks"]["data_points"]
    assert stacks[34]["stats"] == [{"response_status_code": 500, "count": 3}] and stacks[0]["stats"] == []
    assert graphs["errors/status-codes"]["data_points"] == [{"status_code": 500, "count": 3}]
    rescued = graphs["requests/rescued"]["data_points"][34]
    assert rescued["retry"] == [{"retry_success_count": 1, "count": 1}] and rescued["fallback"] == 0
    last = graphs["cache/hit-rate"]["data_points"][-1]
    assert (last["cumulative_simple_cache_savings"], last["cumulative_semantic_cache_savings"]) == (0.75, 0)


def check_groups(users, models, workspaces, metadata, grouped):
    for group in [users, models, workspaces, metadata, *grouped.values()]:
        assert group["object"] == "list" and group["total"] == len(group["data"]) > 0
        assert all(item["object"] == "analytics-group" for item in group["data"])
    assert users["data"][0] == {"user": "u-0", "requests": "4", "cost": "0.75", "object": "analytics-group"}
    assert models["data"] == [{"ai_model": "gpt-4o", "requests": "12", "object": "analytics-group"}]
    assert workspaces["data"][0]["workspace"] == "search"
    assert metadata["data"][0] == {
        "metadata_value": "search", "requests": 12, "cost": 2.25, "avg_tokens": 10, "avg_weighted_feedback": None,
        "requests_with_feedback": 0, "last_seen": "2026-11-02T10:11:00.000Z", "object": "analytics-group"}
    assert set(grouped) == set(GROUPS)
    for by, group in grouped.items():
        assert set(group["data"][0]) == {by, "requests", "object", *COLUMNS.split(",")}, by
    assert grouped["status_code"]["data"][0]["status_code"] == 200
    assert grouped["model"]["data"][0]["success_rate"] == 75


def plain(answer):
    return json.loads(answer.model_dump_json())


def public(kind):
    return {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}


def test_python_sdk(known):
    client = Portkey(api_key=known.key, base_url=known.base).analytics
    paths = {
        "users_requests": "users/requests", "errors_rate": "errors/rate", "errors_stacks": "errors/stacks",
        "errors_status_codes": "errors/status-codes", "requests_rescued": "requests/rescued",
        "cache_hit_rate": "cache/hit-rate", "cache_latency": "cache/latency", "feedbacks_scores": "feedbacks/scores",
        "feedbacks_weighted": "feedbacks/weighted", "feedbacks_ai_models": "feedbacks/ai-models",
    }
    names = public(analytics.AnalyticsGraphs)
    assert len(names) == 17
    check_graphs({paths.get(name, name): plain(getattr(client.graphs, name)(**FRAME)) for name in names})

    assert public(analytics.AnalyticsGroups) == {"users", "ai_models", "workspaces", "metadata", "group_by"}
    grouped = {
        by: plain(client.groups.group_by(group_by=by, columns=COLUMNS, include_total=True, **FRAME)) for by in GROUPS}
    check_groups(
        plain(client.groups.users(order_by="user", order_by_type="asc", **FRAME)), plain(client.groups.ai_models(**FRAME)),
        plain(client.groups.workspaces(**FRAME)), plain(client.groups.metadata(metadata_key="team", **FRAME)), grouped)

    assert public(analytics.AnalyticsSummary) == {"cache"}
    summary = plain(client.summary.cache(workspace_slug="search", **FRAME))
    assert summary["summary"] == {"hits": 3, "avg_latency": 100, "total_requests": 12, "cache_speedup": 0}

    filters = {
        "total_units_min": 10, "total_units_max": 10, "cost_min": 0.25, "cost_max": 0.25, "status_code": "500, 501",
        "virtual_keys": "main,other", "configs": "pc-1", "workspace_slug": "search", "api_key_ids": "k-1",
        "ai_org_model": "openai__gpt-4o, anthropic__claude", "prompt_slug": "pp-1", "metadata": '{"team":"search"}',
        "cache_status": "MISS", "prompt_token_min": 6, "prompt_token_max": 6, "completion_token_min": 4,
        "completion_token_max": 4, "trace_id": "t-3,t-7", "page_size": 10,
    }
    answer = plain(client.graphs.requests(**FRAME, **filters))
    assert answer["summary"] == {"total": 2} and "ignored_parameters" not in answer


def test_node_sdk(known):
    script = Path(__file__).with_name("analytics.cjs")
    asked = json.dumps({"frame": FRAME, "groups": GROUPS, "columns": COLUMNS})
    environment = {**os.environ, "GATELOG_BASE": known.base, "GATELOG_KEY": known.key, "ASKED": asked}
    done = subprocess.run(["node", script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    paths = {
        "usersRequests": "users/requests", "errors_rate": "errors/rate", "errors_stack": "errors/stacks",
        "errors_status_code": "errors/status-codes", "requests_rescued": "requests/rescued",
        "cache_hit_rate": "cache/hit-rate", "cache_latency": "cache/latency", "feedbacks_score": "feedbacks/scores",
        "feedbacks_weighted": "feedbacks/weighted", "feedback_ai_models": "feedbacks/ai-models",
    }
    assert len(told["graphs"]) == 17
    check_graphs({paths.get(name, name): graph for name, graph in told["graphs"].items()})
    assert set(told["methods"]) == {"users", "aiModels", "workspaces", "metadata", "groupedData"}
    assert told["summaries"] == ["cache"]
    check_groups(told["users"], told["models"], told["workspaces"], told["metadata"], told["grouped"])
    assert told["cache"]["summary"]["hits"] == 3
