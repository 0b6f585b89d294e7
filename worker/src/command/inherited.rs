//! Which variables of the worker's environment a program gets.

/// Variables of ours: settings, and the token among them. A program gets those that are made for it.
const OWN: &str = "GAPLESS_";
/// What the clients of object stores take credentials from begins with these.
const STORES: [&str; 3] = ["AWS_", "AZURE_", "GOOGLE_"];
/// Words of a name, between underscores, that tell a secret.
const SECRETS: [&str; 8] = [
    "SECRET",
    "TOKEN",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "CREDENTIALS",
    "KEY",
    "PGPASSWORD",
];

/// A worker's variables but for those that may hold secrets; of these, the ones that its setting `program_variables` names.
///
/// It keeps secrets from programs that print or send on their environment unasked. A program runs as the worker's user
/// and can read what that user can.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inherited {
    named: Vec<String>,
}

impl Inherited {
    /// `named`: names of variables; with `*` at the end, of all that begin so.
    pub fn with(named: Vec<String>) -> Inherited {
        Inherited { named }
    }

    pub fn passes(&self, name: &str) -> bool {
        if name.starts_with(OWN) {
            return false;
        }
        let is_named = |known: &String| match known.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == known,
        };
        let upper = name.to_ascii_uppercase();
        let may_be_secret =
            STORES.iter().any(|store| upper.starts_with(store)) || upper.split('_').any(|word| SECRETS.contains(&word));
        !may_be_secret || self.named.iter().any(is_named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_passed_where_they_are_named() {
        let check = |named: &[&str], name: &str, passes: bool| {
            let inherited = Inherited::with(named.iter().map(|name| name.to_string()).collect());
            assert_eq!(inherited.passes(name), passes, "{name} with {named:?}");
        };
        for name in [
            "PATH",
            "HOME",
            "LANG",
            "TZ",
            "PYTHONPATH",
            "KEYBOARD",
            "http_proxy",
            "MONKEY",
        ] {
            check(&[], name, true);
        }
        for name in [
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_REGION",
            "AZURE_STORAGE_ACCOUNT_KEY",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "PGPASSWORD",
            "VAULT_TOKEN",
            "OPENAI_API_KEY",
            "db_password",
        ] {
            check(&[], name, false);
            check(&[name], name, true);
        }
        check(&["AWS_*"], "AWS_SESSION_TOKEN", true);
        check(&["AWS_*"], "VAULT_TOKEN", false);
        check(&["AWS_SESSION"], "AWS_SESSION_TOKEN", false);
        // Ours never.
        check(&["GAPLESS_TOKEN", "*"], "GAPLESS_TOKEN", false);
        check(&["*"], "VAULT_TOKEN", true);
    }
}
