//! Verbs that this build was made without.

use super::usage;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whatever the verb takes elsewhere
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    _all: Vec<String>,
}

impl Args {
    /// The failure that says so. A verb has the name of its feature.
    pub fn missing(&self, verb: &str) -> anyhow::Error {
        usage(format!(
            "this sipguard was built without `{verb}`: build it with `--features {verb}`, or with the default features"
        ))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn a_verb_that_is_left_out_says_its_feature_whatever_is_typed() {
        let typed = ["serve", "--listen", "127.0.0.1:1", "-v", "file"];
        let cli = Cli::try_parse_from(typed).unwrap_or_else(|error| panic!("{error}"));
        let said = cli.args.missing("serve").to_string();
        assert!(said.contains("without `serve`") && said.contains("--features serve"), "{said}");
    }
}
