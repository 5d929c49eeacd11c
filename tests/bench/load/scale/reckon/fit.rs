//! Costs that grow along a line, found from measurements.

/// A cost that grows with a number of nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Line {
    pub(super) base: f64,
    pub(super) each: f64,
}

impl Line {
    pub(super) fn at(self, count: f64) -> f64 {
        self.base + count * self.each
    }
}

/// Least squares of `y = base · x1 + each · x2` over points `(x1, x2, y)`. Costs are not negative.
pub(super) fn fit(points: &[(f64, f64, f64)]) -> Line {
    let sum = |term: fn(&(f64, f64, f64)) -> f64| points.iter().map(term).sum::<f64>();
    let (aa, ab, bb) = (sum(|p| p.0 * p.0), sum(|p| p.0 * p.1), sum(|p| p.1 * p.1));
    let (ay, by) = (sum(|p| p.0 * p.2), sum(|p| p.1 * p.2));
    let over = |y: f64, x: f64| if x > 0.0 { y / x } else { 0.0 };
    let determinant = aa * bb - ab * ab;
    let flat = Line {
        base: over(ay, aa),
        each: 0.0,
    };
    if determinant <= f64::EPSILON * aa * bb {
        return flat;
    }
    let line = Line {
        base: (ay * bb - by * ab) / determinant,
        each: (by * aa - ay * ab) / determinant,
    };
    match line {
        Line { each, .. } if each < 0.0 => flat,
        Line { base, .. } if base < 0.0 => Line {
            base: 0.0,
            each: over(by, bb),
        },
        line => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found() {
        let points = [(1.0, 4.0, 18.0), (1.0, 16.0, 42.0), (1.0, 8.0, 26.0)];
        assert_eq!(
            fit(&points),
            Line {
                base: 10.0,
                each: 2.0
            }
        );
        // One number of nodes tells nothing about growth.
        assert_eq!(
            fit(&points[..1]),
            Line {
                base: 18.0,
                each: 0.0
            }
        );
        // Noise does not make a cost negative.
        assert_eq!(
            fit(&[(1.0, 1.0, 12.0), (1.0, 2.0, 8.0)]),
            Line {
                base: 10.0,
                each: 0.0
            }
        );
        assert_eq!(fit(&[]), Line::default());
    }
}
