//! Methods by name, as sets.

use super::words::first_bytes;

/// A method, or all unknown methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// Its name.
    pub name: &'static str,
    /// Its bit in a set.
    pub bit: u32,
}

/// The first eight bytes of a name, zero padded.
const fn first_word(name: &str) -> u64 {
    let name = name.as_bytes();
    let mut first = [0; 8];
    let mut k = 0;
    while k < name.len() && k < 8 {
        first[k] = name[k];
        k += 1;
    }
    u64::from_le_bytes(first)
}

/// `Stream::method` of a request with this method.
const fn word(name: &str) -> u64 {
    let name = name.as_bytes();
    let (mut first, mut second) = ([0; 8], [0; 8]);
    let mut k = 0;
    while k < name.len() {
        if k < 8 {
            first[k] = name[k];
        } else {
            second[k - 8] = name[k];
        }
        k += 1;
    }
    let first = u64::from_le_bytes(first);
    if name.len() <= 8 { first } else { super::names::mixed(first, u64::from_le_bytes(second)) }
}

macro_rules! methods {
    ($($bit:literal $name:ident $rfc:literal;)*) => {
        $(#[doc = concat!("RFC ", $rfc, ".")] pub const $name: u32 = 1 << $bit;)*

        /// Every method by name; `OTHER` stands for all unknown ones.
        pub const METHODS: &[Method] =
            &[$(Method { name: stringify!($name), bit: $name },)* Method { name: "OTHER", bit: OTHER }];

        /// Whether the first `len` bytes, at least 1, of which the first eight are `head`, begin the name of a known method; or with `whole` are one. Of
        /// names that are longer than eight bytes the others are not looked at.
        #[inline(always)]
        pub(super) fn begins(head: u64, len: u32, whole: bool) -> bool {
            $({
                const NAME: &str = stringify!($name);
                let fits = len == NAME.len() as u32 || !whole && len < NAME.len() as u32;
                if fits && first_bytes(head ^ const { first_word(NAME) }, len) == 0 {
                    return true;
                }
            })*
            false
        }

        /// The bit of a `Stream::method`.
        #[inline(always)]
        pub(super) fn bit(method: u64) -> u32 {
            $(const { assert!($bit < 31) };)*
            match method {
                $(method if method == const { word(stringify!($name)) } => $name,)*
                _ => OTHER,
            }
        }
    };
}

methods! {
    0 INVITE "3261";
    1 ACK "3261";
    2 BYE "3261";
    3 CANCEL "3261";
    4 OPTIONS "3261";
    5 REGISTER "3261";
    6 PRACK "3262";
    7 SUBSCRIBE "6665";
    8 NOTIFY "6665";
    9 PUBLISH "3903";
    10 INFO "6086";
    11 REFER "3515";
    12 MESSAGE "3428";
    13 UPDATE "3311";
}

/// `Stream::method` of a REGISTER.
pub(super) const REGISTER_WORD: u64 = word("REGISTER");
/// `Stream::method` of an INVITE.
pub(super) const INVITE_WORD: u64 = word("INVITE");
/// `Stream::method` of what is no SIP (RFC 4975).
pub(super) const MSRP_WORD: u64 = word("MSRP");

/// All unknown methods.
pub const OTHER: u32 = 1 << 30;
/// All methods: the transport as a whole.
pub const ALL: u32 = u32::MAX;
