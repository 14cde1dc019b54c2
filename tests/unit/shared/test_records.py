import json

import pytest

from components.shared.errors import UserError
from components.shared.parameters import limits
from components.shared.records import (
    ClassifierRecord,
    FailedGan,
    Fold,
    Manifest,
    SampleQuality,
    SharedGan,
    StartDescription,
    SyntheticDetails,
    TrainedGan,
    load_gan_record,
    load_record,
    path_below,
    write_record,
)

HASH = "a" * 64
CLASSIFIER = {
    "arm": "baseline",
    "parameters": 3,
    "model_sha256": HASH,
    "data_sha256": HASH,
    "split_sha256": HASH,
    "train_set_sha256": HASH,
    "train_rows": 10,
    "settings": {"epochs": 2, "augmentation": "none", "seed": 1, "batch": 32, "precision": "float32"},
    "epochs": 2,
    "real_views": 1.9,
    "validated_epochs": [1],
    "history": {"loss": [1.0, 0.5]},
    "versions": {"keras": "3"},
    "seconds": 1.5,
    "seen": ["0" * 16],
}
OF_CLASS = {
    "dx": "df",
    "architecture": "dcgan",
    "classes": ["df", "nv"],
    "image_size": 32,
    "data_sha256": HASH,
    "split_sha256": HASH,
}
TRAINED = OF_CLASS | {
    "status": "trained",
    "recipe": {"loss": "bce", "turns": True, "gamma": 0.0},
    "latent": 8,
    "kimg": 1.0,
    "start_kimg": 0.0,
    "best_kimg": 1.0,
    "real_images": 5,
    "parameters": {"generator": 1, "discriminator": 1},
    "precision": "float32",
    "rolled_back_kimg": None,
    "losses": {"kimg": [1.0], "generator": [-0.5], "discriminator": [0.5]},
    "kid": {"kimg": [1.0], "value": [-0.01], "against": "validation", "images": {"validation": 3, "synthetic": 9}},
    "versions": {"keras": "3"},
    "seconds": 2,
    "model_sha256": HASH,
    "seen": [],
    "settings": {"seed": 1, "batch": 32, "learning_rate": 0.1},
    "snapshots": [{"kimg": 0, "jpeg": "AAAA"}],
}
SHARED = {key: value for key, value in TRAINED.items() if key not in ("dx", "status", "model_sha256", "seen")}
SHARED |= {"trained_on": ["df"], "features_sha256": HASH}
START = {"architecture": "dcgan", "kimg": 2.5, "split_sha256": HASH, "image_size": 32}
FOLD = {"split": "1/2", "split_sha256": HASH, "verdict": "improved", "value": None}
QUALITY = {
    "dx": "df",
    "images": 2,
    "drawn": 3,
    "kid": None,
    "density": 1.5,
    "coverage": 1.0,
    "texture": None,
    "separability": 0.5,
    "separability_spectrum": None,
    "copies": 1,
    "copy_threshold": 0.1,
    "curated": 0,
    "reject": 0.2,
    "against": "validation",
    "nearest": [{"distance": 0.5, "image_id": "ISIC_1", "index": 3}],
    "pairs_jpeg": "",
}
SYNTHETIC = {"images": 2, "architecture": "dcgan", "separability": 1.0, "label_fidelity": 0.0, "validation_recall": 0.5}
MANIFEST = {
    "files": {"models/gan-df+vasc.html": {"sha256": HASH, "bytes": 3}},
    "candidate": None,
    "promote_if": "improved",
    "verdict": "no evidence",
}


def _file(tmp_path, value):
    path = tmp_path / "record.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


@pytest.mark.parametrize(
    ("value", "model"),
    [
        (CLASSIFIER, ClassifierRecord),
        (QUALITY, SampleQuality),
        (SYNTHETIC, SyntheticDetails),
        (MANIFEST, Manifest),
        (SHARED, SharedGan),
        (START, StartDescription),
        (FOLD, Fold),
    ],
)
def test_load_record_valid_file_survives_a_round_trip(tmp_path, value, model):
    record = load_record(_file(tmp_path, value), model)
    write_record(tmp_path / "again.json", record)
    assert load_record(tmp_path / "again.json", model) == record


def test_load_gan_record_each_status_gives_its_class(tmp_path):
    assert isinstance(load_gan_record(_file(tmp_path, TRAINED)), TrainedGan)
    failed = load_gan_record(_file(tmp_path, OF_CLASS | {"status": "failed", "failed": "diverged"}))
    assert isinstance(failed, FailedGan)
    assert failed.failed == "diverged"


@pytest.mark.parametrize("name", ["dcgan", "resnet"])
def test_records_of_gans_hold_the_noise_of_the_largest_images(name):
    from components.train_gan import architectures

    size = int(limits("data_image_size")[1] or 0)
    changes = {"image_size": size, "latent": architectures.load(name).generator(size).input_shape[-1]}
    for values, model in ((TRAINED, TrainedGan), (SHARED, SharedGan)):
        assert model(**values | changes).latent == changes["latent"]


@pytest.mark.parametrize(
    ("value", "model", "field"),
    [
        (CLASSIFIER | {"arm": "../up"}, ClassifierRecord, "arm"),
        (CLASSIFIER | {"settings": CLASSIFIER["settings"] | {"seed": "/../../x"}}, ClassifierRecord, "settings.seed"),
        (CLASSIFIER | {"settings": CLASSIFIER["settings"] | {"seed": -1}}, ClassifierRecord, "settings.seed"),
        (CLASSIFIER | {"settings": CLASSIFIER["settings"] | {"seed": 1.5}}, ClassifierRecord, "settings.seed"),
        (CLASSIFIER | {"settings": CLASSIFIER["settings"] | {"seed": True}}, ClassifierRecord, "settings.seed"),
        (CLASSIFIER | {"model_sha256": HASH + "\n"}, ClassifierRecord, "model_sha256"),
        (CLASSIFIER | {"surplus": 1}, ClassifierRecord, "surplus"),
        (QUALITY | {"separability": 1.01}, SampleQuality, "separability"),
        (QUALITY | {"separability_spectrum": -0.01}, SampleQuality, "separability_spectrum"),
        (SYNTHETIC | {"label_fidelity": 1.5}, SyntheticDetails, "label_fidelity"),
        (SYNTHETIC | {"validation_recall": -1}, SyntheticDetails, "validation_recall"),
        (SYNTHETIC | {"separability": "0.5"}, SyntheticDetails, "separability"),
        (QUALITY | {"dx": "a/b"}, SampleQuality, "dx"),
        (QUALITY | {"dx": "df\n"}, SampleQuality, "dx"),
        (MANIFEST | {"files": {"../x": {"sha256": HASH, "bytes": 1}}}, Manifest, "files.../x.[key]"),
        (MANIFEST | {"candidate": "/etc/passwd"}, Manifest, "candidate"),
        (SHARED | {"surplus": 1}, SharedGan, "surplus"),
        (SHARED | {"trained_on": ["../up"]}, SharedGan, "trained_on.0"),
        ({key: value for key, value in SHARED.items() if key != "losses"}, SharedGan, "losses"),
        (START | {"kimg": "2.5"}, StartDescription, "kimg"),
        (FOLD | {"verdict": "<b>"}, Fold, "verdict"),
        ("[]", Manifest, ""),
        ("{" * 100_000, Manifest, ""),
        (json.dumps(CLASSIFIER).replace("1.5", "NaN"), ClassifierRecord, "seconds"),
    ],
)
def test_load_record_hostile_content_is_a_user_error_that_names_the_field(tmp_path, value, model, field):
    with pytest.raises(UserError) as caught:
        load_record(_file(tmp_path, value), model)
    assert (caught.value.code, caught.value.fields["field"]) == ("record.invalid", field)


@pytest.mark.parametrize(
    "value",
    [TRAINED | {"dx": "vasc"}, TRAINED | {"status": "maybe"}, {"dx": "df"}, TRAINED | {"dx": "..", "classes": [".."]}],
)
def test_load_gan_record_hostile_content_is_a_user_error(tmp_path, value):
    with pytest.raises(UserError) as caught:
        load_gan_record(_file(tmp_path, value))
    assert caught.value.code == "record.invalid"


def test_load_record_missing_file_is_a_user_error(tmp_path):
    with pytest.raises(UserError) as caught:
        load_record(tmp_path / "none.json", Manifest)
    assert caught.value.code == "record.invalid"


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/../../x", "/etc/passwd", "a//b", "./a", "a\0b", "a\nb", "a\\b", "c:x", "link/x", "loop"],
)
def test_path_below_name_that_leaves_the_folder_is_refused(tmp_path, name):
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    (root / "loop").symlink_to(root / "loop")
    with pytest.raises(UserError) as caught:
        path_below(root, name)
    assert caught.value.code == "path.outside"


def test_path_below_plain_name_is_inside(tmp_path):
    assert path_below(tmp_path, "models/gan-df+vasc.html") == tmp_path.resolve() / "models" / "gan-df+vasc.html"
