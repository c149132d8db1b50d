//! The keys of a table in the order in which `tables.rs` has them; a schema has them by name.

use std::fmt;

use serde::de::{DeserializeOwned, Deserializer, Error, Visitor};

/// The keys of a table. They are what its reader asks for.
pub(super) fn order<T: DeserializeOwned>() -> Vec<&'static str> {
    struct Asked;
    #[derive(Debug)]
    struct Keys(&'static [&'static str]);
    impl fmt::Display for Keys {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{:?}", self.0)
        }
    }
    impl std::error::Error for Keys {}
    impl Error for Keys {
        fn custom<M: fmt::Display>(_: M) -> Keys {
            Keys(&[])
        }
    }
    impl<'de> Deserializer<'de> for Asked {
        type Error = Keys;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Keys> {
            Err(Keys(&[]))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            keys: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Keys> {
            Err(Keys(keys))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }
    T::deserialize(Asked).err().map(|Keys(keys)| keys.to_vec()).unwrap_or_default()
}
