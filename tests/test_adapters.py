"""Adapters: built from shapes alone, they give what their losses take."""

import pytest
import torch
from torch import nn

from distill_app import adapters, losses
from distill_app.world import common_number

SIZES = [(8, 8), (4, 4), (16, 16), (7, 7), (3, 3), (12, 5), (1, 1)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("options", [{}, {"norm": True, "activation": True}, {"norm": True, "pointwise": True}])
def test_conv_regressor_reaches_any_size(size, options):
    source = torch.randn(2, 3, 8, 8)
    out_shape = (2, 5, *size)
    assert adapters.ConvRegressor(source.shape, out_shape, **options)(source).shape == out_shape


@pytest.mark.parametrize(
    ("in_size", "out_size", "kind", "kernel"),
    [
        (8, 8, nn.Conv2d, 1),
        (8, 4, nn.Conv2d, 3),
        (7, 4, nn.Conv2d, 3),
        (4, 8, nn.ConvTranspose2d, 4),
        (8, 3, nn.Conv2d, 1),
    ],
)
def test_conv_regressor_chooses_its_convolution_by_the_ratio_of_sizes(in_size, out_size, kind, kernel):
    module = adapters.ConvRegressor((2, 3, in_size, in_size), (2, 5, out_size, out_size))
    (convolution,) = [layer for layer in module if not isinstance(layer, adapters.Resize)]
    assert type(convolution) is kind
    assert convolution.kernel_size == (kernel, kernel)
    assert convolution.bias is not None


def test_pooling_before_a_pointwise_convolution_changes_nothing_but_the_cost():
    source = torch.randn(2, 3, 8, 8)
    module = adapters.ConvRegressor(source.shape, (2, 5, 3, 3))
    resize, convolution = module
    torch.testing.assert_close(module(source), resize(convolution(source)))


def test_conv_regressor_refuses_embeddings_with_a_hint():
    with pytest.raises(ValueError, match=r"out_shape=\(2, 64\).*LinearProjector"):
        adapters.ConvRegressor((2, 3, 8, 8), (2, 64))


def test_match_channels_learns_nothing_where_nothing_differs():
    source = torch.randn(2, 3, 8, 8)
    same = adapters.MatchChannels(source.shape, (2, 3, 4, 4))
    assert same(source) is source
    assert list(same.parameters()) == []
    assert adapters.MatchChannels(source.shape, (2, 5, 4, 4))(source).shape == (2, 5, 8, 8)
    assert adapters.MatchChannels((2, 6), (2, 9))(torch.randn(2, 6)).shape == (2, 9)
    with pytest.raises(ValueError, match="taps of one kind"):
        adapters.MatchChannels((2, 6), (2, 9, 1, 1))


def test_linear_projector_flattens_and_normalises():
    source = torch.randn(2, 6, 1, 1)
    assert adapters.LinearProjector(source.shape, (2, 9))(source).shape == (2, 9)
    unit = adapters.LinearProjector(source.shape, (2, 9), out_features=4, normalize=True)(source)
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(2))
    with pytest.raises(ValueError, match="out_features=128"):
        adapters.LinearProjector(source.shape)


@pytest.mark.parametrize("norm", [True, False])
def test_factor_modules_fit_each_other_between_networks_of_any_size(norm):
    teacher, student = torch.randn(2, 10, 4, 4), torch.randn(2, 6, 8, 8)
    encoder = adapters.FactorEncoder(teacher.shape, k=0.5, norm=norm)
    factors = encoder(teacher)
    assert factors.shape == (2, 5, 4, 4)
    assert adapters.FactorDecoder(factors.shape, teacher.shape, norm=norm)(factors).shape == teacher.shape
    translator = adapters.FactorEncoder(student.shape, factors.shape, norm=norm)
    assert translator(student).shape == (2, 5, 8, 8)
    losses.FactorTransfer()(student=translator(student), teacher=factors).backward()
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert all(parameter.grad is not None for parameter in translator.parameters())


@pytest.mark.parametrize("size", [(8, 8), (4, 4), (16, 16), (12, 4)])
def test_vid_regressor_and_loss_agree_on_the_smaller_size(size):
    student, teacher = torch.randn(2, 3, 8, 8), torch.randn(2, 5, *size)
    module = adapters.VIDRegressor(student.shape, teacher.shape)
    assert [layer.bias for layer in module if isinstance(layer, nn.Conv2d)] == [None] * 3
    loss = losses.VariationalInformation({"teacher": teacher.shape})
    assert loss(student=module(student), teacher=teacher).isfinite()


def test_heads_give_the_widths_that_their_losses_take():
    pooled = torch.randn(4, 6, 1, 1)
    assert adapters.LogVarianceHead(pooled.shape, (4, 9))(pooled).shape == (4, 9)
    assert adapters.SelfSupervisedHead(pooled.shape)(pooled).shape == (4, 6)
    assert adapters.SelfSupervisedHead(pooled.shape, out_features=3)(pooled).shape == (4, 3)


def test_select_view_gives_one_view_of_every_image():
    rows = torch.arange(8).unsqueeze(1)
    assert adapters.SelectView()(rows).squeeze(1).tolist() == [0, 4]
    assert adapters.SelectView(views=4, view=3)(rows).squeeze(1).tolist() == [3, 7]
    with pytest.raises(ValueError, match=r"0\.\.3"):
        adapters.SelectView(view=4)


def layers(batch):
    """Maps of two of the student's layers and three of the teacher's."""
    student = [torch.randn(batch, 3, 8, 8), torch.randn(batch, 4, 4, 4)]
    return {"student": student, "teacher": [torch.randn(batch, 5, size, size) for size in (8, 4, 2)]}


def shapes(features):
    return {side: [feature.shape for feature in maps] for side, maps in features.items()}


def test_projections_predict_every_map_from_every_other_at_the_smaller_size():
    features = layers(2)
    module = adapters.CrossLayerProjections(*shapes(features).values())
    sizes = [[tuple(prediction.shape) for prediction in row] for row in module(features["student"])]
    assert sizes == [[(2, 5, size, size) for size in sides] for sides in ((8, 4, 2), (4, 4, 2))]


def test_the_attention_of_a_smaller_batch_is_that_of_similarities_filled_up_with_zeros():
    features = layers(3)
    module = adapters.BatchSimilarityAttention(shapes(layers(2)), batch_size=8)
    attention = module(features)
    assert attention.shape == (3, 2, 3)
    torch.testing.assert_close(attention.sum(dim=2), torch.ones(3, 2))
    rows = features["student"][0].flatten(1)
    query = module.queries[0](torch.cat([rows @ rows.T, torch.zeros(3, 5)], dim=1))
    keys = [module._embed(feature, key) for feature, key in zip(features["teacher"], module.keys, strict=True)]
    scores = torch.stack([(nn.functional.normalize(query, dim=1) * key).sum(dim=1) for key in keys], dim=1)
    torch.testing.assert_close(attention[:, 0], scores.softmax(dim=1))
    with pytest.raises(ValueError, match=r"batches of up to 8, got 9: set module\.batch_size"):
        module(layers(9))


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_the_attention_of_tiny_batches_has_a_width(batch_size):
    module = adapters.BatchSimilarityAttention(shapes(layers(2)), batch_size=batch_size)
    assert module(layers(batch_size)).isfinite().all()


@pytest.mark.parametrize("make", [lambda s: adapters.BatchSimilarityAttention(s, batch_size=2)])
@pytest.mark.parametrize(
    "given", [(2, 3, 4, 4), {"student": [(2, 3, 4, 4)]}, {"student": [(2, 3)], "teacher": [(2, 3)]}]
)
def test_an_attention_reads_maps_of_both_networks(make, given):
    for build in (make, adapters.CrossLayerAttention):
        with pytest.raises(ValueError, match=r"source: \{student|works on maps"):
            build(given)


def test_attentions_give_the_teacher_no_gradient_and_stay_in_float32_under_autocast():
    features = layers(4)
    for maps in features.values():
        for feature in maps:
            feature.requires_grad_()
    for module in (
        adapters.BatchSimilarityAttention(shapes(features), batch_size=4),
        adapters.CrossLayerAttention(shapes(features), width=8),
    ):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            attention = module(features)
        assert attention.dtype == torch.float32
        attention.square().sum().backward()
        assert all(feature.grad is None for feature in features["teacher"])
        assert all(feature.grad is not None for feature in features["student"])
        assert all(parameter.grad is not None for parameter in module.parameters())


def test_layer_losses_name_the_attention_that_they_need():
    features = layers(2)
    with pytest.raises(ValueError, match=r"shape \(2, 3, 2\).*\(2, 2, 3\).*CrossLayerAttention"):
        losses.AttendedTransfer()(**features, attention=torch.ones(2, 2, 3))
    with pytest.raises(ValueError, match=r"BatchSimilarityAttention"):
        losses.SemanticCalibration()(
            student=[features["teacher"]], teacher=features["teacher"], attention=torch.ones(2, 3, 3)
        )
    with pytest.raises(ValueError, match=r"\(2, 3, 8, 8\) of \(2, 5, 8, 8\).*CrossLayerProjections"):
        losses.SemanticCalibration()(
            student=[[features["student"][0]] * 3], teacher=features["teacher"], attention=torch.ones(2, 1, 3)
        )


@pytest.mark.parametrize("size", [(4, 4), (8, 8), (3, 5)])
def test_a_fusion_gives_the_teachers_shape_and_a_residual_for_the_next_one(size):
    deep, shallow = torch.randn(2, 6), torch.randn(2, 3, 8, 8)
    deepest = adapters.ReviewFusion(deep.shape, (2, 9), max_channels=4)
    below = deepest(deep)
    assert below["feature"].shape == (2, 9, 1, 1) and below["residual"].shape == (2, 4, 1, 1)
    assert deepest.attention is None
    fusion = adapters.ReviewFusion([shallow.shape, below["residual"].shape], (2, 5, *size))
    above = fusion([shallow, below["residual"]])
    assert above["feature"].shape == (2, 5, *size) and above["residual"].shape == (2, 4, *size)


def test_a_fusion_says_what_it_fuses():
    with pytest.raises(ValueError, match=r"got 3 sources.*adapters\.review4\.residual"):
        adapters.ReviewFusion([(2, 3, 4, 4)] * 3, (2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"in_shape=\(2, 5, 8\)"):
        adapters.ReviewFusion((2, 5, 8), (2, 3, 4, 4))


@pytest.mark.parametrize("mask", ["position", "channel"])
def test_a_generator_masks_a_share_in_training_and_nothing_in_evaluation(mask):
    source = torch.randn(16, 6, 8, 8)
    module = adapters.MaskedGenerator(source.shape, (16, 6, 8, 8), masked=0.25, mask=mask)
    seen = []
    module.generation = nn.Identity()
    for mode in (True, False):
        module.train(mode)
        seen.append((module(source) == 0).float().mean().item())
    assert seen[0] == pytest.approx(0.25, abs=0.15) and seen[1] == 0
    torch.manual_seed(0)
    drawn = torch.Generator().manual_seed(common_number())  # of the whole batch, of which ranks take their rows
    noise = torch.rand((16, 1, 8, 8) if mask == "position" else (16, 6, 1, 1), generator=drawn)
    torch.manual_seed(0)
    module.train()
    torch.testing.assert_close(module(source), module(source, noise))


def test_a_generator_brings_any_map_to_the_teachers_shape_and_refuses_shares_that_are_none():
    source = torch.randn(2, 3, 8, 8)
    for size in SIZES:
        assert adapters.MaskedGenerator(source.shape, (2, 5, *size))(source).shape == (2, 5, *size)
    assert isinstance(adapters.MaskedGenerator(source.shape, source.shape).align, nn.Identity)
    with pytest.raises(ValueError, match=r"masked=1\.0 must lie between 0 and 1"):
        adapters.MaskedGenerator(source.shape, source.shape, masked=1.0)
    with pytest.raises(ValueError, match="allowed: position, channel"):
        adapters.MaskedGenerator(source.shape, source.shape, mask="pixels")


def test_margins_are_the_means_of_what_is_negative():
    feature = torch.tensor([[-1.0, -3.0], [2.0, 4.0], [0.0, -6.0]]).T.view(2, 3, 1, 1)
    margins = adapters.NegativeMargin(feature.shape)(feature)
    torch.testing.assert_close(margins, torch.tensor([-2.0, 0.0, -6.0]).view(1, 3, 1, 1))


@pytest.mark.parametrize("size", [(4, 4), (7, 7), (1, 1)])
def test_class_maps_average_to_the_logits_and_leave_the_classifier_to_the_network(size):
    classifier = nn.Linear(6, 5)
    feature = torch.randn(3, 6, *size).requires_grad_()
    pooled = feature.mean(dim=(2, 3))
    module = adapters.ClassMaps([feature.shape, pooled.shape], borrowed=classifier)
    for mode in (True, False):
        maps = module.train(mode)([feature, pooled])
        assert maps.shape == (3, 5, *size)
        torch.testing.assert_close(maps.mean(dim=(2, 3)), classifier(pooled))
    assert not list(module.parameters()) and not module.state_dict()
    maps.square().sum().backward()
    assert classifier.weight.grad is not None and classifier.bias.grad is not None


def test_regions_are_the_logits_of_parts_of_the_image_the_whole_first():
    classifier, feature = nn.Linear(6, 5), torch.randn(3, 6, 8, 8)
    pooled = feature.mean(dim=(2, 3))
    shapes = [feature.shape, pooled.shape]
    regions = adapters.RegionLogits(shapes, borrowed=classifier)([feature, pooled])
    assert regions.shape == (3, 5, 21)
    torch.testing.assert_close(regions[..., 0], classifier(pooled))
    torch.testing.assert_close(regions[..., 4], classifier(feature[..., 4:, 4:].mean(dim=(2, 3))))
    fewer = adapters.RegionLogits(shapes, borrowed=classifier, grids=[1, 2])([feature, pooled])
    torch.testing.assert_close(fewer, regions[..., :5])
    for grids in ([], [2, 4], [1, 3], [1, 2, 2]):
        with pytest.raises(ValueError, match="must begin with 1"):
            adapters.RegionLogits(shapes, borrowed=classifier, grids=grids)


@pytest.mark.parametrize("make", [adapters.ClassMaps, adapters.RegionLogits])
def test_a_classifier_that_does_not_read_the_average_of_the_map_is_refused(make):
    shapes, feature = [(2, 6, 4, 4), (2, 6)], torch.randn(2, 6, 4, 4)
    for borrowed in (nn.Linear(24, 5), nn.Sequential(nn.Linear(6, 5))):
        with pytest.raises(ValueError, match=r"6 channels; this one ends in"):
            make(shapes, borrowed=borrowed)
    with pytest.raises(ValueError, match="makes them in another way"):
        make(shapes, borrowed=nn.Linear(6, 5)).eval()([feature, feature.relu().mean(dim=(2, 3))])
    with pytest.raises(ValueError, match=r"source: \[student\.stage4, student\.pooled\]"):
        make((2, 6, 4, 4), borrowed=nn.Linear(6, 5))


def detections(*scores: float, **more):
    boxes = torch.tensor([[1.0, 2.0, 11.0 + number, 22.0] for number in range(len(scores))]).view(-1, 4)
    labels = torch.arange(1, len(scores) + 1)
    return {"boxes": boxes, "labels": labels, "scores": torch.tensor(scores), **more}


def hidden(**more):
    kinds = {"labels": torch.int64, "area": torch.float64, "iscrowd": torch.int64}
    empty = {name: torch.zeros(0, dtype=dtype) for name, dtype in kinds.items()}
    return {"boxes": torch.zeros(0, 4), **empty, "size": (32, 32), "unlabelled": True, **more}


def test_pseudo_boxes_are_what_is_found_with_a_score_and_an_area():
    found = detections(0.95, 0.5, 0.9)
    found["boxes"][2, 2] = 1.0  # no width
    (made,) = adapters.PseudoBoxes(num_classes=3)({"targets": [hidden()], "found": [found]})
    assert made["boxes"].tolist() == [[1, 2, 11, 22]] and made["labels"].tolist() == [1]
    assert made["area"].tolist() == [200] and made["area"].dtype == torch.float64 and made["iscrowd"].tolist() == [0]
    assert made["size"] == (32, 32) and made["unlabelled"]
    (none,) = adapters.PseudoBoxes(num_classes=3)({"targets": [hidden()], "found": [detections()]})
    assert none["boxes"].shape == (0, 4) and none["labels"].dtype == torch.int64


def test_pseudo_boxes_leave_images_with_a_target_as_they_are_unless_all_are_asked_for():
    own = {**hidden(), **detections(0.0), "area": torch.ones(1, dtype=torch.float64)}
    del own["unlabelled"], own["scores"]
    given = {"targets": [own], "found": [detections(0.95, 0.95)]}
    assert len(adapters.PseudoBoxes(num_classes=3)(given)[0]["boxes"]) == 1
    assert len(adapters.PseudoBoxes(num_classes=3, everywhere=True)(given)[0]["boxes"]) == 2


def test_pseudo_boxes_make_masks_where_targets_have_them():
    masks = torch.zeros(2, 1, 32, 32)
    masks[0, 0, 2:22, 1:11] = 0.9
    found = detections(0.95, 0.2, masks=masks)
    target = hidden(masks=torch.zeros(0, 32, 32, dtype=torch.uint8))
    (made,) = adapters.PseudoBoxes(num_classes=3)({"targets": [target], "found": [found]})
    assert made["masks"].shape == (1, 32, 32) and int(made["masks"].sum()) == 200


@pytest.mark.parametrize(
    ("found", "target", "message"),
    [
        ({"loss_objectness": torch.zeros(())}, {}, "got a mapping of loss_objectness: read teacher.output"),
        ([], {}, "of each of 1 images, got 0 values"),
        ([{"boxes": torch.zeros(0, 4)}], {}, "got 1 values"),
        ([detections(0.95, 0.95, 0.95, 0.95)], {}, "of a class 4 cannot teach one of 3 classes"),
        ([detections(0.95)], {"masks": torch.zeros(0, 32, 32)}, "targets have masks, and the detector finds none"),
        ([detections(0.95)], {"keypoints": torch.zeros(0, 4, 2)}, "no keypoints are made of detections"),
    ],
)
def test_pseudo_boxes_refuse_what_are_no_detections_for_these_targets(found, target, message):
    with pytest.raises(ValueError, match=message):
        adapters.PseudoBoxes(num_classes=3)({"targets": [hidden(**target)], "found": found})
    with pytest.raises(ValueError, match="score=2 must lie between 0 and 1"):
        adapters.PseudoBoxes(num_classes=3, score=2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: adapters.FactorEncoder((2, 8, 4, 4), k=-2.0), r"k=-2\.0 must be above 0"),
        (lambda: adapters.LearnableTemperature(initial=float("nan")), "initial=nan must be a finite number"),
        (lambda: adapters.LearnableTemperature(width=float("nan")), "width=nan must be above 0"),
    ],
)
def test_numbers_that_no_adapter_can_mean_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
