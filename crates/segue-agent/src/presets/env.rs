use super::Preset;

/// Names of environment variables that an agent CLI may need from its surroundings.
///
/// An attempt starts with a scrubbed environment. What is listed here says which names are worth
/// passing on, so that a user need not know each vendor's list by heart. The two lists are to be
/// treated differently: a runner may pass `harmless` names by default, and `secrets` only where the
/// user's configuration allows that name. Both lists hold only what the CLI itself reads; `PATH`,
/// `HOME` and the like are the business of whoever builds the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnvAllow {
    /// Switches, places and model names. None of them is a credential.
    pub harmless: &'static [&'static str],
    /// Keys, tokens, paths of key files, and proxies or base URLs (they may hold a password).
    pub secrets: &'static [&'static str],
}

impl Preset {
    /// The variables that this CLI reads, split by whether they may hold a secret.
    pub fn env_allow(self) -> EnvAllow {
        match self {
            Preset::Claude => CLAUDE,
            Preset::Codex => CODEX,
            Preset::Gemini => GEMINI,
            Preset::Opencode => OPENCODE,
        }
    }
}

const CLAUDE: EnvAllow = EnvAllow {
    harmless: &[
        "ANTHROPIC_DEFAULT_HAIKU_MODEL",
        "ANTHROPIC_DEFAULT_OPUS_MODEL",
        "ANTHROPIC_DEFAULT_SONNET_MODEL",
        "ANTHROPIC_MODEL",
        "ANTHROPIC_VERTEX_PROJECT_ID",
        "AWS_PROFILE",
        "AWS_REGION",
        "CLAUDE_CODE_MAX_CONCURRENT_SUBAGENTS",
        "CLAUDE_CODE_MAX_SUBAGENT_SPAWN_DEPTH",
        "CLAUDE_CODE_PRINT_BG_WAIT_CEILING_MS",
        "CLAUDE_CODE_SUBAGENT_MODEL",
        "CLAUDE_CODE_USE_BEDROCK",
        "CLAUDE_CODE_USE_VERTEX",
        "CLAUDE_CONFIG_DIR",
        "CLOUD_ML_REGION",
        "NODE_EXTRA_CA_CERTS",
        "NO_PROXY",
    ],
    secrets: &[
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
        "ANTHROPIC_BASE_URL",
        "ANTHROPIC_CUSTOM_HEADERS",
        "AWS_ACCESS_KEY_ID",
        "AWS_BEARER_TOKEN_BEDROCK",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "CLAUDE_CODE_OAUTH_TOKEN",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "HTTPS_PROXY",
        "HTTP_PROXY",
    ],
};

const CODEX: EnvAllow = EnvAllow {
    harmless: &["CODEX_HOME", "NO_PROXY", "SSL_CERT_FILE"],
    secrets: &["CODEX_API_KEY", "HTTPS_PROXY", "HTTP_PROXY", "OPENAI_API_KEY", "OPENAI_BASE_URL"],
};

const GEMINI: EnvAllow = EnvAllow {
    harmless: &[
        "GEMINI_MODEL",
        "GOOGLE_CLOUD_LOCATION",
        "GOOGLE_CLOUD_PROJECT",
        "GOOGLE_GENAI_USE_GCA",
        "GOOGLE_GENAI_USE_VERTEXAI",
        "NODE_EXTRA_CA_CERTS",
        "NO_PROXY",
    ],
    secrets: &[
        "GEMINI_API_KEY",
        "GOOGLE_API_KEY",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_GEMINI_BASE_URL",
        "HTTPS_PROXY",
        "HTTP_PROXY",
    ],
};

const OPENCODE: EnvAllow = EnvAllow {
    harmless: &[
        "NODE_EXTRA_CA_CERTS",
        "NO_PROXY",
        "OPENCODE_CONFIG",
        "OPENCODE_CONFIG_DIR",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "XDG_STATE_HOME",
    ],
    secrets: &[
        "ANTHROPIC_API_KEY",
        "GEMINI_API_KEY",
        "GOOGLE_API_KEY",
        "GOOGLE_GENERATIVE_AI_API_KEY",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "OPENAI_API_KEY",
        "OPENCODE_API_KEY",
        "OPENCODE_CONFIG_CONTENT",
        "OPENROUTER_API_KEY",
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_both_harmless_and_secret_and_lists_are_sorted() {
        for preset in Preset::ALL {
            let EnvAllow { harmless, secrets } = preset.env_allow();
            assert!(harmless.is_sorted() && secrets.is_sorted(), "{preset}");
            for name in harmless {
                assert!(!secrets.contains(name), "{preset}: {name}");
            }
        }
    }

    #[test]
    fn nothing_that_is_named_like_a_credential_passes_as_harmless() {
        for preset in Preset::ALL {
            for name in preset.env_allow().harmless {
                for word in ["KEY", "TOKEN", "SECRET", "CREDENTIALS", "_URL", "HEADERS"] {
                    assert!(!name.contains(word), "{preset}: {name}");
                }
            }
        }
    }
}
