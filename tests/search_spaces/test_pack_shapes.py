from __future__ import annotations

from search_spaces.pack_shapes import MAX_PACK, PACK_PARAMETERS, pack_limit, pack_shape, why_alone


def test_what_a_sampler_holds_alike_makes_trials_of_one_shape() -> None:
    one = {"family": "mlp", "batch_size": 32, "width": 128, "depth": 1, "optimizer": "sgd"}
    other = {"family": "mlp", "batch_size": 32, "width": 128, "depth": 4, "optimizer": "adamw", "residual": True}
    assert set(PACK_PARAMETERS) <= set(one)
    assert pack_shape("mlp", one) == pack_shape("mlp", other) is not None
    assert pack_shape("mlp", one) != pack_shape("mlp", one | {"batch_size": 64})
    assert pack_shape("mlp", one) != pack_shape("mlp", one | {"width": 256})


def test_of_the_space_over_all_families_one_trains_in_packs() -> None:
    one = {"batch_size": 32, "width": 64}
    assert pack_shape("tabular", one | {"family": "mlp"}) is not None
    assert pack_shape("tabular", one | {"family": "realmlp"}) is None
    assert why_alone("tabular") == ""


def test_narrow_networks_share_packs() -> None:
    assert pack_shape("mlp", {"batch_size": 32, "width": 16}) == pack_shape("mlp", {"batch_size": 32, "width": 64})


def test_other_spaces_and_unknown_configurations_train_alone() -> None:
    assert pack_shape("resnet", {"batch_size": 32, "width": 64}) is None
    assert pack_shape("my_module:build", {"batch_size": 32, "width": 64}) is None
    assert pack_shape("mlp", {"width": 64}) is None


def test_wide_networks_come_in_smaller_packs() -> None:
    limits = [pack_limit(pack_shape("mlp", {"batch_size": 32, "width": width})) for width in (16, 128, 256, 512)]
    assert limits == sorted(limits, reverse=True)
    assert limits[0] == MAX_PACK
    assert limits[-1] >= 1
    assert pack_limit(None) == 1


def test_the_reason_to_train_alone_is_told() -> None:
    assert why_alone("mlp") == ""
    assert "'resnet' cannot share a graph" in why_alone("resnet")
    assert "2 devices" in why_alone("mlp", num_replicas=2)
    assert "mixed precision" in why_alone("mlp", mixed_precision=True)
