"""FGFI and FGD: where they look, what they give without objects, and what they refuse."""

import box_fixtures as boxes
import pytest
import torch

from distill_app import adapters, losses


def fgfi(given, **options):
    names = ("student", "teacher", "targets", "anchors", "pyramid")
    return losses.FineGrainedImitation(**options)(**{name: given[name] for name in names})


def focal(given, level=0, **options):
    sides = (given["student"][level], given["teacher"][level])
    return losses.FocalDistance(**options)(*sides, given["targets"], given["images"])


@pytest.mark.parametrize(("maximum", "case"), [("pyramid", "global"), ("level", "per_level")])
def test_positions_near_objects_on_several_levels_are_the_references(golden, maximum, case):
    numbers = golden("fgfi")
    g = numbers.inputs
    targets = boxes.targets_of(g.boxes.detach(), g.box_image, [(160, 192)] * 2)
    anchors = torch.cat([getattr(g, f"anchors_p{level}").detach() for level in (3, 4, 5)])
    loss = losses.FineGrainedImitation(maximum=maximum)
    masks = loss.masks(targets, [anchors, anchors], [(20, 24), (10, 12), (5, 6)])
    for level, mask in zip((3, 4, 5), masks, strict=True):
        wanted = numbers.arrays[f"formula_masks_3levels_{case}/out/mask_p{level}"]
        assert mask.squeeze(1).equal(wanted.bool())
    assert sum(int(mask.sum()) for mask in masks) == numbers.arrays[f"formula_masks_3levels_{case}/loss"]


@pytest.mark.parametrize("placed", ["image", "batch"])
def test_fgd_masks_are_the_references(golden, placed):
    numbers = golden("fgd")
    g, case = numbers.inputs, {"image": "authors_unit", "batch": "authors_padded_size"}[placed]
    targets = boxes.targets_of(g.boxes.detach(), g.box_image, g.image_sizes.tolist())
    found = losses.FocalDistance(placed=placed).masks(targets, (8, 10), torch.zeros(2, 3, 64, 80))
    for mask, name in zip(found, ("fg_mask", "bg_mask"), strict=True):
        torch.testing.assert_close(mask.squeeze(1).double(), numbers.arrays[f"{case}/out/{name}"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("objects", ["some", "in one image", "none", "crowds", "all over"])
def test_losses_and_gradients_are_finite_whatever_the_images_show(dtype, batch, objects):
    given = boxes.levels(batch, dtype=dtype)
    for number, target in enumerate(given["targets"]):
        if objects == "none" or (objects == "in one image" and number):
            target["boxes"] = target["boxes"][:0]
        elif objects == "crowds":
            target["iscrowd"] = torch.ones(2, dtype=torch.int64)
        elif objects == "all over":
            target["boxes"] = torch.tensor([[-3.0, -3.0, 96.0, 70.0]])
    values = [fgfi(given), *(focal(given, level) for level in range(3))]
    values += [losses.AttentionDistance()(*pair) for pair in zip(given["student"], given["teacher"], strict=True)]
    total = torch.stack(values).sum()
    assert total.isfinite() and {value.dtype for value in values} == {torch.float32}
    assert boxes.gradients(total, given["student"]) and all(level.grad is None for level in given["teacher"])
    assert bool(values[0] > 0) == (objects not in ("none", "crowds"))


@pytest.mark.parametrize("who", ["student", "teacher", "both"])
def test_maps_of_zeros_give_finite_gradients(who):
    given = boxes.levels(2)
    for side in ("student", "teacher") if who == "both" else (who,):
        for level in given[side]:
            level.detach().zero_()
    values = [fgfi(given), focal(given), losses.AttentionDistance()(given["student"][0], given["teacher"][0])]
    total = torch.stack(values).sum() + 0 * sum(level.sum() for level in given["student"])
    assert total.isfinite() and boxes.gradients(total, given["student"])
    assert bool(total == 0) == (who == "both")


def test_fgfi_counts_positions_near_objects_alone_and_each_once():
    given = boxes.levels(2)
    before = fgfi(given)
    masks = losses.FineGrainedImitation().masks(given["targets"], given["anchors"], [(8, 12), (4, 6), (2, 3)])
    for level, mask in zip(given["student"], masks, strict=True):
        level.data += 7.0 * ~mask
    torch.testing.assert_close(fgfi(given), before)
    apart = sum(
        ((s - t).square() * mask).sum() for s, t, mask in zip(given["student"], given["teacher"], masks, strict=True)
    )
    torch.testing.assert_close(apart / (2 * sum(mask.sum() for mask in masks)), before)
    assert fgfi(given, share=0.9) != before and fgfi(given, maximum="level") != before


def test_fgfi_sees_an_object_on_the_level_of_its_size():
    given = boxes.levels(1)
    given["targets"][0]["boxes"] = torch.tensor([[0.0, 0.0, 64.0, 64.0]])  # as anchors of the last level
    masks = losses.FineGrainedImitation().masks(given["targets"], given["anchors"], [(8, 12), (4, 6), (2, 3)])
    assert [bool(mask.any()) for mask in masks] == [False, False, True]


def test_many_objects_are_those_of_each_alone():
    given = boxes.levels(1)
    corners = torch.rand(70, 2, generator=torch.Generator().manual_seed(0)) * 50
    many = torch.cat([corners, corners + 8 + corners.flip(0) / 4], dim=1)
    loss, sizes = losses.FineGrainedImitation(), [(8, 12), (4, 6), (2, 3)]

    def near(some):
        return torch.cat([mask.flatten() for mask in loss.masks([{"boxes": some, "size": (64, 96)}], anchors, sizes)])

    anchors = given["anchors"]
    assert near(many).equal(torch.stack([near(box) for box in many.split(1)]).any(dim=0))


def test_crowds_are_no_objects_and_boxes_end_where_the_image_ends():
    given = boxes.levels(1)
    (target,) = given["targets"]
    whole = focal(given)
    target["boxes"] = torch.cat([target["boxes"], torch.tensor([[0.0, 0.0, 30.0, 30.0]])])
    target["iscrowd"] = torch.tensor([0, 0, 1])
    torch.testing.assert_close(focal(given), whole)
    target["boxes"], target["iscrowd"] = torch.tensor([[-20.0, 8.0, 40.0, 44.0]]), torch.tensor([0])
    over = losses.FocalDistance().masks(given["targets"], (8, 12), given["images"])
    target["boxes"] = torch.tensor([[0.0, 8.0, 40.0, 44.0]])
    for mask, wanted in zip(
        over, losses.FocalDistance().masks(given["targets"], (8, 12), given["images"]), strict=True
    ):
        torch.testing.assert_close(mask, wanted)


def test_fgd_places_boxes_on_the_padded_batch():
    given = boxes.levels(1)
    (target,) = given["targets"]
    target |= {"size": (32, 48), "boxes": torch.tensor([[8.0, 8.0, 16.0, 16.0]])}  # padded to twice its size
    found = {
        placed: losses.FocalDistance(placed=placed).masks(given["targets"], (8, 12), given["images"])[0]
        for placed in ("batch", "image")
    }
    assert found["batch"].nonzero()[:, 2:].unique().tolist() == [1, 2]
    assert found["image"].nonzero()[:, 2:].unique().tolist() == [2, 3, 4]


def test_fgd_without_attention_weighs_all_positions_of_an_object_alike():
    given = boxes.levels(1)
    plain = focal(given, attention=False, background=0.0)
    mask, _ = losses.FocalDistance().masks(given["targets"], (8, 12), given["images"])
    torch.testing.assert_close(plain, ((given["student"][0] - given["teacher"][0]).square() * mask).sum())
    assert focal(given, background=0.0) != plain


def test_a_context_is_learnt_on_both_sides_and_begins_as_the_map_itself():
    given = boxes.levels(2)
    blocks = [adapters.GlobalContext((2, 4, 8, 12)) for _ in range(2)]
    sides = given["student"][0], given["teacher"][0]
    outputs = [block(side) for block, side in zip(blocks, sides, strict=True)]
    assert all(output.equal(side) for output, side in zip(outputs, sides, strict=True))
    losses.ContextDistance()(*outputs).backward()
    assert all(block.transform[-1].weight.grad.abs().sum() > 0 for block in blocks)
    with pytest.raises(ValueError, match="GlobalContext works on maps"):
        adapters.GlobalContext((2, 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": torch.zeros(2)}, "needs the boxes of each image, a list of 2 targets: read batch.target"),
        ({"targets": [{"boxes": torch.zeros(0, 4), "size": (64, 96)}]}, "a list of 2 targets"),
        ({"anchors": [torch.zeros(100, 4)] * 2}, "100 anchors on 126 positions"),
        ({"teacher": []}, "as many levels of both networks, got 3 and 0"),
    ],
)
def test_fgfi_refuses_what_is_no_pyramid_with_anchors_and_boxes(change, message):
    with pytest.raises(ValueError, match=message):
        fgfi({**boxes.levels(2), **change})


def test_a_map_that_is_no_level_of_the_pyramid_is_refused():
    given = boxes.levels(2)
    given["pyramid"] = {"0": torch.zeros(2, 4, 14, 9)}
    with pytest.raises(
        ValueError, match="a map of 8 x 12 is no level of the student's pyramid, whose sizes are 14 x 9"
    ):
        fgfi({**given, "anchors": [torch.zeros(14 * 9 * 3, 4)] * 2})


def test_a_network_that_resizes_images_by_itself_is_refused():
    given = boxes.levels(1)
    with pytest.raises(ValueError, match="the network resizes images by itself"):
        losses.FocalDistance()(given["student"][0], given["teacher"][0], given["targets"], torch.zeros(1, 3, 32, 48))


@pytest.mark.parametrize("adapter", [adapters.MatchChannels, adapters.ConvRegressor, adapters.MaskedGenerator])
def test_levels_of_other_strides_are_refused_where_they_have_to_be_the_same(adapter):
    adapter((2, 3, 8, 8), (2, 5, 8, 8), same_size=True)
    adapter((2, 3, 8, 8), (2, 5, 4, 4))
    with pytest.raises(ValueError, match=r"these have 8 x 8 and 4 x 4 positions.*method.params.levels"):
        adapter((2, 3, 8, 8), (2, 5, 4, 4), same_size=True)
