//! Enums whose values have names: in tables, JSON, the store and on the command line. Each has one table of them.

/// Gives an enum its names: `ALL`, `name()` and `of()`.
#[macro_export]
macro_rules! named {
    ($type:ident { $($value:ident = $name:literal),+ $(,)? }) => {
        #[allow(dead_code, unreachable_pub, reason = "what is only written is never read back, and an enum may be private")]
        impl $type {
            /// Every value.
            pub const ALL: &'static [$type] = &[$($type::$value),+];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $($type::$value => $name),+
                }
            }

            /// The value of a name; `None` when nothing is called so.
            #[must_use]
            pub fn of(name: &str) -> Option<$type> {
                Self::ALL.iter().copied().find(|one| one.name() == name)
            }

            /// Every name, as in `a, b, c`.
            #[must_use]
            pub fn names() -> String {
                Self::ALL.iter().map(|one| one.name()).collect::<Vec<_>>().join(", ")
            }
        }
    };
}

pub use named;

#[cfg(test)]
mod tests {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Two {
        One,
        Other,
    }

    named!(Two { One = "one", Other = "the-other" });

    #[test]
    fn a_name_is_read_as_it_is_written() {
        assert!(Two::ALL.iter().all(|one| Two::of(one.name()) == Some(*one)));
        assert_eq!((Two::of("One"), Two::of(""), Two::names().as_str()), (None, None, "one, the-other"));
    }
}
