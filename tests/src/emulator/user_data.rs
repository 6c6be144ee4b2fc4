//! What a machine reads from its user data: settings as `name='value'` between the first line and the script
//! (`cloudformation/user-data.sh`).

use serde_json::Value;
use std::collections::BTreeMap;

/// The settings of a machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings(BTreeMap<String, String>);

impl Settings {
    /// Reads user data.
    pub(crate) fn read(text: &str) -> Self {
        let pair = |line: &str| {
            let (name, value) = line.split_once('=')?;
            let value = value.strip_prefix('\'')?.strip_suffix('\'')?;
            // A quote would end the value, in the shell as here.
            (!value.contains('\'')).then(|| (name.to_owned(), value.to_owned()))
        };
        Self(text.lines().skip(1).map_while(pair).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The volume that the agent keeps its data on.
    pub(crate) fn volume(&self) -> Option<String> {
        self.get("volume").map(str::to_owned)
    }

    /// The agent's configuration, without the machine's identity.
    pub(crate) fn config(&self) -> Option<Value> {
        let text = self.get("config")?;
        Some(serde_json::from_str(text).unwrap_or_else(|error| panic!("config of user data: {error}")))
    }

    /// Name of the SSM parameter with the keys of callers.
    pub(crate) fn parameter(&self) -> Option<&str> {
        self.get("parameter")
    }

    /// Further arguments of the agent.
    pub(crate) fn arguments(&self) -> impl Iterator<Item = &str> {
        self.get("arguments").unwrap_or("").split_whitespace()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_stand_before_the_script() {
        let text = "#!/bin/bash\nvolume='vol-1'\nconfig='{\"node\":\"it\\u0027s\"}'\nparameter=''\nset -e\nx='later'\n";
        let read = Settings::read(text);
        assert_eq!(read.volume().as_deref(), Some("vol-1"));
        assert_eq!(read.config().unwrap()["node"], "it's");
        assert_eq!((read.parameter(), read.get("x")), (None, None));
        assert_eq!(read.arguments().count(), 0);
    }
}
