from counterweight.tasks import CHECKPOINTS, variables


def test_classifiers_of_a_local_run_get_half_of_the_machine(tmp_path):
    """Two of their tasks run at a time; a task that trains GANs alone has all CPUs, and others need no variables."""
    folders = {"train_classifier": tmp_path / "a", "train_gan": tmp_path / "b"}
    found = variables("train_classifier", folders)
    assert (found["COUNTERWEIGHT_SHARE"], found[CHECKPOINTS]) == ("0.5", str(tmp_path / "a"))
    assert "COUNTERWEIGHT_SHARE" not in variables("pretrain_gan", folders)
    assert variables("evaluate", folders) == {}
