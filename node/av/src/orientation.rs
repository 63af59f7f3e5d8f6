//! How a stored picture must be turned to be shown upright.

/// One of the eight ways to turn and mirror a rectangle. The name says what is done to the stored picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orientation {
    /// Nothing.
    Upright,
    /// A quarter turn clockwise.
    Clockwise,
    /// Half a turn.
    HalfTurn,
    /// A quarter turn anticlockwise.
    Anticlockwise,
    /// Left and right change places.
    MirrorX,
    /// Top and bottom change places.
    MirrorY,
    /// Rows become columns.
    Transpose,
    /// Rows become columns, and the result makes half a turn.
    AntiTranspose,
}

impl Orientation {
    /// Reads a display matrix (`[a b u; c d v; x y w]`, 16.16 fixed point, a point being a row before it). An angle
    /// between the quarters becomes the nearest quarter: no camera writes one, and a tilted picture would need a frame.
    pub fn from_matrix(matrix: [i32; 9]) -> Self {
        let [a, b, _, c, d, ..] = matrix.map(i64::from);
        let straight = a.abs() + d.abs();
        let turned = b.abs() + c.abs();
        if straight >= turned {
            match (a < 0, d < 0) {
                (false, false) => Self::Upright,
                (true, true) => Self::HalfTurn,
                (true, false) => Self::MirrorX,
                (false, true) => Self::MirrorY,
            }
        } else {
            match (b < 0, c < 0) {
                (false, true) => Self::Clockwise,
                (true, false) => Self::Anticlockwise,
                (false, false) => Self::Transpose,
                (true, true) => Self::AntiTranspose,
            }
        }
    }

    /// Whether width and height change places.
    pub fn swaps_sides(self) -> bool {
        match self {
            Self::Upright | Self::HalfTurn | Self::MirrorX | Self::MirrorY => false,
            Self::Clockwise | Self::Anticlockwise | Self::Transpose | Self::AntiTranspose => true,
        }
    }

    /// The filters that do it, in libav's graph language; none for upright.
    pub fn filters(self) -> Option<&'static str> {
        match self {
            Self::Upright => None,
            Self::Clockwise => Some("transpose=clock"),
            Self::HalfTurn => Some("hflip,vflip"),
            Self::Anticlockwise => Some("transpose=cclock"),
            Self::MirrorX => Some("hflip"),
            Self::MirrorY => Some("vflip"),
            Self::Transpose => Some("transpose=cclock_flip"),
            Self::AntiTranspose => Some("transpose=clock_flip"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(a: i32, b: i32, c: i32, d: i32) -> [i32; 9] {
        [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    }

    #[test]
    fn every_quarter_and_mirror_is_told_apart() {
        use Orientation::{AntiTranspose, Anticlockwise, Clockwise, HalfTurn, MirrorX, MirrorY, Transpose, Upright};
        let table = [
            (matrix(1, 0, 0, 1), Upright),
            (matrix(0, 1, -1, 0), Clockwise),
            (matrix(-1, 0, 0, -1), HalfTurn),
            (matrix(0, -1, 1, 0), Anticlockwise),
            (matrix(-1, 0, 0, 1), MirrorX),
            (matrix(1, 0, 0, -1), MirrorY),
            (matrix(0, 1, 1, 0), Transpose),
            (matrix(0, -1, -1, 0), AntiTranspose),
        ];
        for (matrix, expected) in table {
            assert_eq!(Orientation::from_matrix(matrix), expected);
        }
    }

    #[test]
    fn a_matrix_of_zeros_or_extremes_does_not_overflow() {
        assert_eq!(Orientation::from_matrix([0; 9]), Orientation::Upright);
        assert_eq!(Orientation::from_matrix([i32::MIN; 9]), Orientation::HalfTurn);
    }
}
