"""Component specifications of publishing, and of reading a published champion; see `publish.py` and `champion.py`."""

from kfp import dsl

from components.container_images import image


@dsl.component(base_image=image("publish"), install_kfp_package=False)
def publish(
    test_data: dsl.Input[dsl.Dataset],
    data_profile: dsl.Input[dsl.HTML],
    synthetic_images: dsl.Input[dsl.Dataset],
    classifiers_real: dsl.Input[list[dsl.Model]],
    classifiers_synthetic: dsl.Input[list[dsl.Model]],
    results: dsl.Input[dsl.Artifact],
    report: dsl.Input[dsl.HTML],
    output: str,
    run: str,
    verdict: str,
    promote_if: str,
    published: dsl.Output[dsl.Artifact],
) -> str:
    """Copy models, synthetic images and report to the output, the manifest last, and return their place."""
    from components.shared.errors import exit_on_user_error

    with exit_on_user_error():
        from components.publish.publish import collect
        from components.publish.publish import publish as publish_files
        from components.shared.records import Results, load_record

        folders = [synthetic_images, *classifiers_real, *classifiers_synthetic, results]
        files = collect(
            folders=[folder.path for folder in folders],
            others={
                "data_profile.html": data_profile.path,
                "report.html": report.path,
                "splits.csv": f"{test_data.path}/splits.csv",
                "data_source.json": f"{test_data.path}/data_source.json",
            },
        )
        results_record = load_record(files["metrics.json"], Results)
        place = publish_files(
            output=output,
            run=run,
            files=files,
            artifact=published.path,
            artifact_address=published.uri,
            results_address=results.uri,
            finished=str(results.metadata.get("finished", "")),
            verdict=verdict,
            advice=results_record.advice,
            promote_if=promote_if,
            champion=results_record.champion,
        )
        published.metadata["place"] = place
        return place


@dsl.component(base_image=image("publish"), install_kfp_package=False)
def read_champion(
    champion: str,
    training_data: dsl.Input[dsl.Dataset],
    champion_files: dsl.Output[dsl.Artifact],
) -> None:
    """Copy what a comparison with the promoted model of an earlier run needs, and check that its classes are the same.

    `champion` contains the hash of that run's manifest, so that the copy is taken from the cache until it changes.
    """
    from components.shared.errors import exit_on_user_error

    with exit_on_user_error():
        from components.publish.champion import read_champion as read

        read(champion=champion, training_data=training_data.path, out=champion_files.path)
