//! What surrounds the network in a training step, each against its definition: images, the fully connected layer, the
//! loss, totals and optimizers.

use residua::backend::cpu::Cpu;
use residua::ops::{
    Adam, AdamStep, CrossEntropy, Device, GlobalPool, ImageBatch, Linear, LinearForward, LinearInputGradient,
    LinearWeightGradient, LoadImages, PLACEMENT_NUMBERS, PoolHead, PoolHeadForward, RecordTotals, Segment,
    Segments, Sgd, SgdStep, SoftmaxCrossEntropy, StepTotals,
};
use residua::tensor::{DType, HostValues, Span};

use crate::ops::passes::{after, float, positive};
use crate::ops::reference;
use crate::ops::{Values, check, check_kernels, in_every_precision, output, random};

#[test]
fn a_linear_layer_and_its_gradients_are_matrix_products() {
    in_every_precision(|| {
        for [batch, inputs, outputs] in
            [[1, 1, 1], [2, 3, 5], [33, 17, 70], [5, 512, 10], [65, 64, 100], [200, 130, 3]]
        {
            let attributes = Linear { batch, inputs, outputs };
            let (x, weight) = (random(batch * inputs, 1), random(outputs * inputs, 2));
            let (bias, dy) = (random(outputs, 3), random(batch * outputs, 4));
            let (mut y, mut dx) = (bias.repeat(batch), vec![0.0; x.len()]);
            let (mut dweight, mut dbias) = (vec![0.0; weight.len()], vec![0.0; outputs]);
            for n in 0..batch {
                for o in 0..outputs {
                    dbias[o] += dy[n * outputs + o];
                    for i in 0..inputs {
                        y[n * outputs + o] += x[n * inputs + i] * weight[o * inputs + i];
                        dx[n * inputs + i] += dy[n * outputs + o] * weight[o * inputs + i];
                        dweight[o * inputs + i] += dy[n * outputs + o] * x[n * inputs + i];
                    }
                }
            }
            let operands = [float(&x), float(&weight), float(&bias), output(y.len())];
            let call = LinearForward { attributes, x: 0, weight: 1, bias: 2, y: 3 };
            check(call, &operands, &after(4, [(3, y)]));
            let operands = [float(&dy), float(&weight), output(x.len())];
            let call = LinearInputGradient { attributes, dy: 0, weight: 1, dx: 2 };
            check(call, &operands, &after(3, [(2, dx)]));
            let operands = [float(&x), float(&dy), output(weight.len()), output(outputs)];
            let call = LinearWeightGradient { attributes, x: 0, dy: 1, dweight: 2, dbias: 3 };
            check(call, &operands, &after(4, [(2, dweight), (3, dbias)]));
        }
    });
}

#[test]
fn a_networks_tail_is_the_mean_over_pixels_and_a_linear_layer_on_it() {
    in_every_precision(|| {
        // Channels that fill no vector, one pixel, one class, a thousand; more images than a block takes; more channels than
        // it holds, and a matrix too large to be read by every block.
        for [batch, side, channels, outputs] in [
            [1, 1, 1, 1],
            [1, 1, 64, 10],
            [5, 7, 17, 3],
            [3, 4, 12, 1],
            [9, 2, 40, 33],
            [2, 7, 264, 100],
            [1, 3, 130, 1000],
            [150, 2, 16, 7],
            [2, 1, 2056, 2],
            [2, 1, 520, 520],
        ] {
            let pool = GlobalPool { batch, height: side, width: side, channels };
            let pixels = side * side;
            let (x, weight) = (random(batch * pixels * channels, 1), random(outputs * channels, 2));
            let bias = random(outputs, 3);
            let mut features = vec![0.0; batch * channels];
            for (i, x) in x.iter().enumerate() {
                features[i / (pixels * channels) * channels + i % channels] += x / pixels as f64;
            }
            let mut logits = bias.repeat(batch);
            for (row, features) in logits.chunks_mut(outputs).zip(features.chunks(channels)) {
                for (logit, weight) in row.iter_mut().zip(weight.chunks(channels)) {
                    *logit += features.iter().zip(weight).map(|(x, w)| x * w).sum::<f64>();
                }
            }
            let attributes = PoolHead { pool, outputs };
            let call = PoolHeadForward { attributes, x: 0, weight: 1, bias: 2, features: 3, logits: 4 };
            let results = [output(features.len()), output(logits.len())];
            let operands = [[float(&x), float(&weight), float(&bias)].as_slice(), &results].concat();
            check(call, &operands, &after(5, [(3, features), (4, logits)]));
        }
    });
}

#[test]
fn cross_entropy_is_exact_for_small_and_for_huge_logits() {
    in_every_precision(|| {
        for (batch, classes, smoothing, size) in [
            (1, 1, 0.0, 1.0),
            (3, 10, 0.0, 4.0),
            (5, 17, 0.1, 1.0),
            (64, 100, 0.1, 200.0),
            (2, 3, 0.0, 3000.0),
        ] {
            let logits: Vec<f64> =
                random(batch * classes, 1).iter().map(|l| f64::from((l * size) as f32)).collect();
            let labels: Vec<i32> = (0..batch).map(|n| (n * 7 % classes) as i32).collect();
            let (loss, prediction, gradient) = reference::cross_entropy(&logits, &labels, classes, smoothing);
            let attributes = CrossEntropy { batch, classes, smoothing };
            let call =
                SoftmaxCrossEntropy { attributes, logits: 0, labels: 1, loss: 2, prediction: 3, dlogits: 4 };
            let operands = [
                float(&logits),
                Values::Integer(labels),
                output(batch),
                Values::Integer(vec![0; batch]),
                output(batch * classes),
            ];
            let expected = [
                output(0),
                output(0),
                Values::Float(loss),
                Values::Integer(prediction),
                Values::Float(gradient),
            ];
            check(call, &operands, &expected);
        }
    });
}

#[test]
fn a_label_outside_the_classes_is_an_error_on_the_host() {
    in_every_precision(|| {
        let mut device = Cpu::<f32>::new(1).unwrap();
        device.allocate(1024).unwrap();
        let span = |place: usize, elements, dtype| Span { offset: place * 64, elements, dtype };
        let labels = span(1, 2, DType::I32);
        let call = SoftmaxCrossEntropy {
            attributes: CrossEntropy { batch: 2, classes: 3, smoothing: 0.0 },
            logits: span(0, 6, DType::F32),
            labels,
            loss: span(2, 2, DType::F32),
            prediction: span(3, 2, DType::I32),
            dlogits: span(4, 6, DType::F32),
        };
        for label in [3, -1] {
            device.write(labels, HostValues::I32(&[0, label])).unwrap();
            let message = device.run(&call.into(), span(8, 0, DType::F32)).unwrap_err().to_string();
            assert!(message.contains(&format!("sample 1 of the batch has label {label}")), "{message}");
        }
    });
}

#[test]
fn an_image_or_a_slot_that_is_not_there_is_an_error_on_the_host_that_says_which() {
    let mut device = Cpu::<f32>::new(1).unwrap();
    device.allocate(8192).unwrap();
    let span = |place: usize, elements, dtype| Span { offset: place * 64, elements, dtype };
    let placement = span(2, 2 * PLACEMENT_NUMBERS, DType::I32);
    let images = LoadImages {
        attributes: ImageBatch { images: 4, batch: 2, side: 1, channels: 3 },
        pixels: span(0, 12, DType::U8),
        table: span(10, 768, DType::F32),
        placement,
        y: span(4, 6, DType::F32),
    };
    for number in [4, -1] {
        let mut numbers = [0; 2 * PLACEMENT_NUMBERS];
        numbers[PLACEMENT_NUMBERS] = number;
        device.write(placement, HostValues::I32(&numbers)).unwrap();
        let message = device.run(&images.into(), span(8, 0, DType::F32)).unwrap_err().to_string();
        let expected = format!("image 1 of the batch is number {number} of 4 in memory");
        assert!(message.contains(&expected), "{message}");
    }
    let hyper = span(3, 8, DType::F32);
    let totals = |column| RecordTotals {
        attributes: StepTotals { batch: 1, slots: 2, columns: 1, column },
        loss: span(0, 1, DType::F32),
        prediction: span(1, 1, DType::I32),
        labels: span(2, 1, DType::I32),
        hyper,
        totals: span(4, 4, DType::F32),
    };
    device.write(hyper, HostValues::F32(&[0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0])).unwrap();
    let mut message =
        |column| device.run(&totals(column).into(), span(8, 0, DType::F32)).unwrap_err().to_string();
    assert!(message(0).contains("slot 2 of 2"), "{}", message(0));
    assert!(message(1).contains("columns: 1, column: 1"), "{}", message(1));
}

#[test]
fn a_label_outside_the_classes_makes_the_loss_of_its_row_nan_on_a_device() {
    in_every_precision(|| {
        let (batch, classes) = (9, 40);
        let logits = random(batch * classes, 1);
        let good: Vec<i32> = (0..batch as i32).collect();
        let (mut loss, prediction, mut gradient) = reference::cross_entropy(&logits, &good, classes, 0.1);
        let mut labels = good;
        for (row, label) in [(2, -1), (5, classes as i32), (8, i32::MIN)] {
            labels[row] = label;
            loss[row] = f64::NAN;
            gradient[row * classes..][..classes].fill(f64::NAN);
        }
        let attributes = CrossEntropy { batch, classes, smoothing: 0.1 };
        let call =
            SoftmaxCrossEntropy { attributes, logits: 0, labels: 1, loss: 2, prediction: 3, dlogits: 4 };
        let operands = [
            float(&logits),
            Values::Integer(labels),
            output(batch),
            Values::Integer(vec![0; batch]),
            output(logits.len()),
        ];
        let mut expected = after(5, [(2, loss), (4, gradient)]);
        expected[3] = Values::Integer(prediction);
        check_kernels(call, &operands, &expected);
    });
}

#[test]
fn totals_of_a_loss_go_to_their_slot_and_column_and_to_no_other() {
    in_every_precision(|| {
        for (batch, slots, slot, columns, column) in
            [(1, 1, 0, 1, 0), (5, 3, 2, 1, 0), (256, 4, 1, 3, 2), (300, 4, 3, 5, 0), (1000, 7, 6, 2, 1)]
        {
            let (loss, before) = (positive(batch, 1), random(2 * slots * columns, 2));
            let labels: Vec<i32> = (0..batch as i32).map(|n| n % 5).collect();
            let prediction: Vec<i32> = (0..batch as i32).map(|n| n % 3).collect();
            let hits = labels.iter().zip(&prediction).filter(|(label, hit)| label == hit).count();
            let mut totals = before.clone();
            let place = 2 * (slot * columns + column);
            totals[place] = loss.iter().sum();
            totals[place + 1] = hits as f64;
            let attributes = StepTotals { batch, slots, columns, column };
            let call = RecordTotals { attributes, loss: 0, prediction: 1, labels: 2, hyper: 3, totals: 4 };
            let operands = |slot: f64| {
                [
                    float(&loss),
                    Values::Integer(prediction.clone()),
                    Values::Integer(labels.clone()),
                    float(&[0.125, 1.0, 1.0, slot, 0.25, 1.0, 1.0, slots as f64]),
                    float(&before),
                ]
            };
            check(call, &operands(slot as f64), &after(5, [(4, totals)]));
            check_kernels(call, &operands(slots as f64), &after(5, [(4, before.clone())]));
        }
    });
}

/// `[index, left, right_of_x, right_of_y, top, down_of_x, down_of_y, 0]` from numbers in pixels.
fn placement(index: i32, [left, right_of_x, right_of_y, top, down_of_x, down_of_y]: [f64; 6]) -> Vec<i32> {
    let fixed = |pixels: f64| (pixels * 65536.0).round() as i32;
    vec![
        index,
        fixed(left),
        fixed(right_of_x),
        fixed(right_of_y),
        fixed(top),
        fixed(down_of_x),
        fixed(down_of_y),
        0,
    ]
}

/// Images as they are, shifted beyond the border, flipped, turned by 30 degrees, shrunk.
fn placements(side: f64) -> [[f64; 6]; 6] {
    let (cos, sin) = (0.75_f64.sqrt(), 0.5);
    let centre = side / 2.0;
    // From the centre of the output pixel (x, y) to a place in the input, half a pixel included.
    let turned = |x: f64, y: f64| centre + x * (0.5 - centre) + y * (0.5 - centre);
    [
        [0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        [-2.0, 1.0, 0.0, 3.0, 0.0, 1.0],
        [side - 1.0, -1.0, 0.0, 0.0, 0.0, 1.0],
        [side - 3.0, -1.0, 0.0, -1.0, 0.0, 1.0],
        [turned(cos, sin), cos, sin, turned(-sin, cos), -sin, cos],
        [0.25, 2.0, 0.0, 0.25, 0.0, 2.0],
    ]
}

#[test]
fn images_are_cropped_flipped_turned_and_looked_up_in_one_pass() {
    in_every_precision(|| {
        for (images, batch, side, channels) in [(1, 1, 1, 1), (4, 13, 5, 3), (3, 30, 8, 1), (7, 6, 32, 3)] {
            let attributes = ImageBatch { images, batch, side, channels };
            let bytes = random(images * side * side * channels, 1);
            let pixels: Vec<u8> = bytes.iter().map(|x| ((x + 1.0) * 127.9) as u8).collect();
            let table = random(256 * channels, 2);
            let numbers: Vec<i32> = (0..batch)
                .flat_map(|n| placement((n * 5 % images) as i32, placements(side as f64)[n % 6]))
                .collect();
            let y = reference::load_images(&attributes, &pixels, &table, &numbers);
            let call = LoadImages { attributes, pixels: 0, table: 1, placement: 2, y: 3 };
            let operands = |numbers: &[i32]| {
                let numbers = Values::Integer(numbers.to_vec());
                [Values::Byte(pixels.clone()), float(&table), numbers, output(y.len())]
            };
            check(call, &operands(&numbers), &after(4, [(3, y.clone())]));

            // An image that is not there cannot be read, and must not look like one that is.
            for index in [images as i32, -1] {
                let (mut numbers, mut y) = (numbers.clone(), y.clone());
                numbers[(batch - 1) * PLACEMENT_NUMBERS] = index;
                y[(batch - 1) * side * side * channels..].fill(f64::NAN);
                check_kernels(call, &operands(&numbers), &after(4, [(3, y)]));
            }
        }
    });
}

/// One segment, or three with rows of their own, in which an optimizer's settings differ.
fn segmentations() -> [Segments; 4] {
    let segment = |elements, weight_decay, row| Segment { elements, weight_decay, row };
    [
        Segment::alone(1, 0.01),
        Segment::alone(17, 0.0),
        Segment::alone(40_000, 5e-4),
        [segment(2064, 0.01, 0), segment(1028, 5e-4, 1), segment(5, 0.0, 1)],
    ]
}

/// Of every element its weight decay and the row of its numbers.
fn settings(segments: &Segments) -> Vec<(f64, usize)> {
    let of = |segment: &Segment| vec![(segment.weight_decay, segment.row); segment.elements];
    segments.iter().flat_map(of).collect()
}

/// What the copies hold: the parameters as activations, if they were asked for.
fn copied(copy: bool, parameters: &[f64]) -> Vec<f64> {
    if copy { parameters.to_vec() } else { Vec::new() }
}

#[test]
fn sgd_steps_as_defined_in_every_segment() {
    in_every_precision(|| {
        for (index, segments) in segmentations().into_iter().enumerate() {
            let (momentum, nesterov) = [(0.0, false), (0.9, false), (0.9, true), (0.9, false)][index];
            let copy = index != 1;
            let attributes = Sgd { segments, momentum, nesterov, copy };
            let (settings, rates) = (settings(&segments), [0.125, 0.0, 0.0, 0.0, 0.25, 0.0, 0.0, 0.0]);
            let elements = settings.len();
            // Without momentum there is no velocity.
            let velocities = if momentum == 0.0 { 0 } else { elements };
            let (mut p, g, mut v) = (random(elements, 1), random(elements, 2), random(velocities, 3));
            let copies = output(if copy { elements } else { 0 });
            let operands = [float(&p), float(&g), float(&v), float(&rates), copies];
            for (i, (weight_decay, row)) in settings.into_iter().enumerate() {
                let gradient = g[i] + weight_decay * p[i];
                if momentum != 0.0 {
                    v[i] = momentum * v[i] + gradient;
                }
                let plain = if momentum == 0.0 { gradient } else { v[i] };
                p[i] -= rates[4 * row] * if nesterov { gradient + momentum * v[i] } else { plain };
            }
            let call = SgdStep { attributes, parameters: 0, gradients: 1, velocity: 2, hyper: 3, copies: 4 };
            let copies = copied(copy, &p);
            check(call, &operands, &after(5, [(0, p), (2, v), (4, copies)]));
        }
    });
}

#[test]
fn adam_and_adamw_step_as_defined_in_every_segment() {
    in_every_precision(|| {
        for (index, segments) in segmentations().into_iter().enumerate() {
            let (decoupled, copy) = (index % 2 == 1, index > 0);
            let attributes = Adam { segments, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, decoupled, copy };
            let (settings, rows) = (settings(&segments), [0.125, 0.5, 0.25, 0.0, 0.25, 0.75, 0.5, 0.0]);
            let elements = settings.len();
            let (mut p, g) = (random(elements, 1), random(elements, 2));
            let (mut m, mut v) = (random(elements, 3), positive(elements, 4));
            let copies = output(if copy { elements } else { 0 });
            let operands = [float(&p), float(&g), float(&m), float(&v), float(&rows), copies];
            for (i, (weight_decay, row)) in settings.into_iter().enumerate() {
                let hyper = &rows[4 * row..];
                let mut gradient = g[i];
                if decoupled {
                    p[i] *= 1.0 - hyper[0] * weight_decay;
                } else {
                    gradient += weight_decay * p[i];
                }
                m[i] += (1.0 - 0.9) * (gradient - m[i]);
                v[i] = 0.999 * v[i] + (1.0 - 0.999) * gradient * gradient;
                p[i] -= hyper[0] / hyper[1] * m[i] / (v[i].sqrt() / hyper[2] + 1e-8);
            }
            let call = AdamStep {
                attributes,
                parameters: 0,
                gradients: 1,
                first: 2,
                second: 3,
                hyper: 4,
                copies: 5,
            };
            let copies = copied(copy, &p);
            check(call, &operands, &after(6, [(0, p), (2, m), (3, v), (5, copies)]));
        }
    });
}

#[test]
fn a_pack_that_lies_in_two_segments_is_refused() {
    in_every_precision(|| {
        let mut device = Cpu::<f32>::new(1).unwrap();
        device.allocate(1024).unwrap();
        let span = |place: usize, elements| Span { offset: place * 64, elements, dtype: DType::F32 };
        let segment = |elements| Segment { elements, weight_decay: 0.0, row: 0 };
        let call = SgdStep {
            attributes: Sgd {
                segments: [segment(6), segment(4), Segment::EMPTY],
                momentum: 0.0,
                nesterov: false,
                copy: false,
            },
            parameters: span(0, 10),
            gradients: span(1, 10),
            velocity: span(2, 0),
            hyper: span(3, 8),
            copies: span(4, 0),
        };
        let error = device.run(&call.into(), span(5, 0)).unwrap_err().to_string();
        assert!(error.contains("multiple of four"), "{error}");
    });
}
