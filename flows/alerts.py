"""Notifications about failed flows."""

from typing import Any

import httpx
from prefect import Flow
from prefect.blocks.core import Block
from prefect.client.schemas.objects import FlowRun
from prefect.logging import get_run_logger
from prefect.states import State

from flows.settings import read_flow_settings


def alert(flow: Flow, flow_run: FlowRun, state: State) -> None:
    """State hook: send a notification to the URL or Prefect block set by params.yaml: flows.alert."""
    target = read_flow_settings().alert
    if not target:
        return
    text = f"zerotag: flow {flow.name}, run {flow_run.name}: {state.name}. {state.message or ''}"
    try:
        if target.startswith(("http://", "https://")):
            content = {
                "text": text,
                "flow": flow.name,
                "run": flow_run.name,
                "id": str(flow_run.id),
                "state": state.name,
            }
            httpx.post(target, json=content, timeout=20).raise_for_status()
        else:
            block: Any = Block.load(target)
            block.notify(text, subject=f"zerotag: {flow.name} failed")
    except Exception as error:  # a failed notification must not hide why the flow failed
        get_run_logger().warning("params.yaml: flows.alert = %s: notification failed: %s", target, error)
