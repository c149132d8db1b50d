//! Tier `slow`: what takes a minute or more, or measures a rate or memory on a machine that nobody else keeps busy. It needs what the
//! tier `lab` needs. Its tests take turns with `sipguard_tests::exclusive`.

mod avalanche;
mod burst;
mod costs;
mod crash;
mod kills;
mod rates;
mod replay;
mod soak;
mod verbs;
