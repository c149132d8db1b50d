//! The processors that programs are made for.

/// A processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    Amd64,
    Arm64,
}

impl Architecture {
    /// Rust's name, and that of rpm.
    pub fn rust_name(self) -> &'static str {
        match self {
            Architecture::Amd64 => "x86_64",
            Architecture::Arm64 => "aarch64",
        }
    }

    /// Debian's name.
    pub fn debian_name(self) -> &'static str {
        match self {
            Architecture::Amd64 => "amd64",
            Architecture::Arm64 => "arm64",
        }
    }

    /// What the compiler is told.
    pub fn target(self) -> String {
        format!("{}-unknown-linux-gnu", self.rust_name())
    }
}
