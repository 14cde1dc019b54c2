"""Component specification of the exit task; see `notify.py`."""

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
    """Report the state, time and cost of the run, with a link, in the UI and to a webhook."""
    import os
    from pathlib import Path

    from components.notify.notify import TOKEN_FILE, notify_safely, read_token

    local = status.pipeline_job_resource_name.startswith("local-pipeline")
    notify_safely(
        state=status.state,
        error=status.error_message or "",
        run_id=run_id,
        run_name=run_name,
        data=data,
        api="" if local else api,
        token=read_token(Path(TOKEN_FILE)),
        ui="" if local else ui,
        rates=rates,
        webhook=os.environ.get("COUNTERWEIGHT_WEBHOOK", ""),
        summary=summary.path,
    )
