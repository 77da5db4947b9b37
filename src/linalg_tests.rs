//! Tests of the linear algebra against plain loops and the definitions, over odd shapes.

use super::*;
use crate::rng::Stream;

fn random(rows: usize, columns: usize, seed: u64) -> Vec<f64> {
    let stream = Stream::new(seed, &[]);
    (0..rows * columns).map(|i| stream.normal(i as u64)).collect()
}

fn plain_product(a: &[f64], b: &[f64], m: usize, k: usize, n: usize) -> Vec<f64> {
    let mut out = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            out[i * n + j] = (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum();
        }
    }
    out
}

fn assert_close(a: &[f64], b: &[f64], tolerance: f64) {
    assert_eq!(a.len(), b.len());
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        assert!((x - y).abs() <= tolerance * (1.0 + y.abs()), "element {i}: {x} against {y}");
    }
}

fn transpose(a: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    (0..columns).flat_map(|j| (0..rows).map(move |i| a[i * columns + j])).collect()
}

#[test]
fn products_match_the_plain_loop_in_every_transposition() {
    for (m, k, n) in [(1, 1, 1), (3, 5, 2), (17, 1, 9), (1, 33, 7), (40, 13, 21), (5, 64, 1)] {
        let (a, b) = (random(m, k, 1), random(k, n, 2));
        let expected = plain_product(&a, &b, m, k, n);
        let (at, bt) = (transpose(&a, m, k), transpose(&b, k, n));
        let mut out = vec![f64::NAN; m * n];
        matmul(View::new(&a, m, k), View::new(&b, k, n), &mut out);
        assert_close(&out, &expected, 1e-13);
        matmul(View::new(&at, k, m).transposed(), View::new(&bt, n, k).transposed(), &mut out);
        assert_close(&out, &expected, 1e-13);
    }
}

#[test]
fn a_gram_matrix_is_the_product_with_the_transpose() {
    for (rows, columns) in [(1, 1), (7, 3), (3, 130), (50, 257), (0, 4)] {
        let x = random(rows, columns, 3);
        let mut gram = vec![0.0; columns * columns];
        add_gram(&x, rows, columns, &mut gram);
        mirror_lower(&mut gram, columns);
        assert_close(&gram, &plain_product(&transpose(&x, rows, columns), &x, columns, rows, columns), 1e-13);
    }
}

#[test]
fn eigenvectors_rebuild_the_matrix_and_are_orthonormal() {
    for size in [1, 2, 5, 31, 70] {
        let x = random(size + 3, size, 4);
        let mut s = vec![0.0; size * size];
        add_gram(&x, size + 3, size, &mut s);
        mirror_lower(&mut s, size);
        let eigen = SymmetricEigen::new(&s, size).unwrap();
        assert!(eigen.values.windows(2).all(|pair| pair[0] <= pair[1]));
        let vt = transpose(&eigen.vectors, size, size);
        let mut scaled = eigen.vectors.clone();
        for row in scaled.chunks_exact_mut(size) {
            row.iter_mut().zip(&eigen.values).for_each(|(x, value)| *x *= value);
        }
        assert_close(&plain_product(&scaled, &vt, size, size, size), &s, 1e-11);
        let identity: Vec<f64> = (0..size * size).map(|i| f64::from(u8::from(i % (size + 1) == 0))).collect();
        assert_close(&plain_product(&vt, &eigen.vectors, size, size, size), &identity, 1e-12);
    }
}

#[test]
fn a_pseudo_inverse_satisfies_penrose_and_knows_its_rank() {
    // 9 rows in 14 dimensions: rank 9.
    let (rows, size) = (9, 14);
    let mut s = vec![0.0; size * size];
    add_gram(&random(rows, size, 5), rows, size, &mut s);
    mirror_lower(&mut s, size);
    let pinv = PseudoInverseFactor::new(&s, size, size).unwrap();
    assert_eq!(pinv.rank, rows);
    let p = plain_product(&pinv.factor, &transpose(&pinv.factor, size, pinv.rank), size, pinv.rank, size);
    let sps = plain_product(&plain_product(&s, &p, size, size, size), &s, size, size, size);
    assert_close(&sps, &s, 1e-11);
    let psp = plain_product(&plain_product(&p, &s, size, size, size), &p, size, size, size);
    assert_close(&psp, &p, 1e-10);
    assert!(pinv.condition() >= 1.0 && pinv.condition().is_finite());
    assert_eq!(PseudoInverseFactor::new(&s, size, 4).unwrap().rank, 4);
}

#[test]
fn a_zero_matrix_has_an_empty_pseudo_inverse() {
    let pinv = PseudoInverseFactor::new(&[0.0; 9], 3, 3).unwrap();
    assert_eq!((pinv.rank, pinv.factor.len()), (0, 0));
    assert!(pinv.condition().is_infinite());
}

#[test]
fn singular_vectors_rebuild_wide_and_tall_matrices_and_solve_them() {
    for (rows, columns) in [(1, 1), (3, 8), (8, 3), (20, 20)] {
        let a = random(rows, columns, 6);
        let svd = Svd::new(&a, rows, columns).unwrap();
        let size = rows.min(columns);
        assert_eq!(svd.rank(), size);
        let mut scaled = svd.left.clone();
        for row in scaled.chunks_exact_mut(size) {
            row.iter_mut().zip(&svd.values).for_each(|(x, value)| *x *= value);
        }
        assert_close(
            &plain_product(&scaled, &transpose(&svd.right, columns, size), rows, size, columns),
            &a,
            1e-12,
        );
        // b in the range of a: a pinv(a) b = b.
        let b = plain_product(&a, &random(columns, 1, 7), rows, columns, 1);
        assert_close(&plain_product(&a, &svd.solve(&b), rows, columns, 1), &b, 1e-11);
    }
}

#[test]
fn an_infinite_element_is_an_error_and_no_panic() {
    assert!(SymmetricEigen::new(&[f64::NAN, 0.0, 0.0, 1.0], 2).is_err());
    assert!(Svd::new(&[f64::NAN, 0.0, 0.0, 1.0], 2, 2).is_err());
}

#[test]
fn distances_and_dots_match_plain_sums_for_every_tail_length() {
    for n in 0..13 {
        let (a, b) = (random(1, n, 8), random(1, n, 9));
        let plain: f64 = a.iter().zip(&b).map(|(x, y)| (x - y) * (x - y)).sum();
        assert!((squared_distance(&a, &b) - plain).abs() < 1e-12);
        let plain: f64 = a.iter().zip(&b).map(|(x, y)| x * y).sum();
        assert!((dot(&a, &b) - plain).abs() < 1e-12);
    }
}

#[test]
fn exponentials_are_those_of_the_library_to_two_units_in_the_last_place() {
    let stream = crate::rng::Stream::new(4, &[]);
    let mut x: Vec<f64> = (0..20_000).map(|i| -stream.uniform(i).powi(3) * 750.0).collect();
    x.extend([0.0, -1e-300, -1e-17, -0.34657, -0.34658, -707.9, -708.1, -1e9, f64::MIN]);
    let mut found = vec![0.0; x.len()];
    let sum = exponentials(&x, 0.0, 1.0, &mut found);
    for (x, found) in x.iter().zip(&found) {
        let expected = x.exp();
        // Numbers that are barely normal are zero already.
        let tiny = if *x < -708.0 { 1e-300 } else { 0.0 };
        assert!((found - expected).abs() <= 2.0 * f64::EPSILON * expected + tiny, "{x}: {found} {expected}");
    }
    assert!((sum / found.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    assert!((sum_of_exponentials(&x, 0.0, 1.0) / sum - 1.0).abs() < 1e-13);
    assert_eq!(
        exponentials(&[3.0, 1.0], 3.0, 0.5, &mut [0.0; 2]),
        1.0 + exponentials(&[-1.0], 0.0, 1.0, &mut [0.0])
    );
}
