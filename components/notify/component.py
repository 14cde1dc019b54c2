"""Spec of the exit task: see `notify.py`."""

from kfp import dsl

from components.container_images import image


@dsl.component(base_image=image("notify"), install_kfp_package=False)
def notify(
    status: dsl.PipelineTaskFinalStatus,
    run_id: str,
    run_name: str,
    data: str,
    api: str,
    ui: str,
    rates: dict,
    summary: dsl.Output[dsl.Markdown],
) -> None:
    """Says how the run ended: status, time and cost by phase, link; also to a webhook, where the cluster has one."""
    from components.shared.errors import exit_on_user_error

    with exit_on_user_error():
        import os
        from pathlib import Path

        from components.notify.notify import notify as tell

        token = Path("/var/run/secrets/kubeflow/pipelines/token")
        here = status.pipeline_job_resource_name.startswith("local-pipeline")
        tell(
            state=status.state,
            error=status.error_message or "",
            run_id=run_id,
            run_name=run_name,
            data=data,
            api="" if here else api,
            token=token.read_text(encoding="utf-8").strip() if token.exists() else "",
            ui="" if here else ui,
            rates=rates,
            webhook=os.environ.get("COUNTERWEIGHT_WEBHOOK", ""),
            summary=summary.path,
        )
