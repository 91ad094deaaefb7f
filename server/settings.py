"""The environment, checked: every setting with what it means; default secrets are refused."""

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from graph.execution.cost import DEFAULT, Limits
from models.agents.declared import without_secrets
from models.budgets.accounts import MOST_TOKENS
from models.errors import Refused
from models.threads.sending import Terms
from server import secret_key


class Settings(BaseSettings):
    """What can be configured. Each setting is an environment variable of the same name."""

    model_config = SettingsConfigDict(case_sensitive=False, extra="ignore", hide_input_in_errors=True, frozen=True)

    demo: bool = Field(
        default=False,
        description="Demo mode: demo accounts and data, a generated SECRET_KEY, playground and introspection on. "
        "Never for production.",
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 for all.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one and says which.")
    workers: int = Field(default=1, ge=1, le=64, description="Processes that serve, on one port.")
    data_dir: Path = Field(
        default=Path(".agenthub"), description="Where the embedded database and generated secrets are kept."
    )

    mongodb_uri: SecretStr | None = Field(
        default=None,
        description="A MongoDB replica set, 6.0 or newer, with its options. Without it the embedded database is used.",
    )
    mongodb_dbname: str = Field(
        default="agenthub_db",
        min_length=1,
        max_length=63,
        pattern=r"^[A-Za-z0-9_-]+$",
        description="Name of the database.",
    )

    secret_key: SecretStr | None = Field(
        default=None,
        description="Signs access tokens: 32 random bytes or more. Required outside demo mode.",
    )
    secret_key_file: Path | None = Field(
        default=None, description="A file that holds SECRET_KEY, for container secrets. SECRET_KEY goes before it."
    )
    secret_key_older: SecretStr | None = Field(
        default=None,
        description="Former values of SECRET_KEY, separated by commas: what they signed stays good for its time.",
    )
    algorithm: Literal["HS256", "HS384", "HS512"] = Field(
        default="HS256", description="How access tokens are signed: HS256, HS384 or HS512."
    )
    access_token_expire_minutes: int = Field(
        default=60, ge=1, le=43_200, description="Life of an access token and of the browser's cookie, in minutes."
    )
    password_cost: Literal["standard", "cheap"] = Field(
        default="standard",
        description="What hashing a password costs: standard, or cheap for tests (never for real accounts).",
    )
    registration_open: bool = Field(
        default=True, description="Whether anyone may register; false leaves it to admins to create accounts."
    )
    admin_email: str | None = Field(
        default=None, description="E-mail of the first admin, made at start when there is no admin yet."
    )
    admin_password: SecretStr | None = Field(default=None, description="Password of that first admin.")

    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Origins of web pages on other hosts that may use the service, separated by commas, "
        "like https://hub.example.com.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Addresses or networks of reverse proxies, separated by commas, like 10.0.0.0/8: they alone say "
        "in X-Forwarded-For and X-Forwarded-Proto where a request comes from. Tries are counted by that address.",
    )
    introspection: bool = Field(
        default=False, description="Whether clients may read the schema; always true in demo mode unless set."
    )
    playground: bool = Field(
        default=False, description="Whether /graphql opens the playground in a browser; true in demo mode unless set."
    )
    requests_per_minute: int = Field(
        default=6000,
        ge=0,
        description="Requests a minute of one person or API key, over all processes; 0 for any number.",
    )
    requests_per_minute_signed_out: int = Field(
        default=600, ge=0, description="The same of one address from which nobody has signed in; 0 for any number."
    )
    max_query_length: int = Field(
        default=DEFAULT.length, ge=1000, description="Most characters that a GraphQL document may have."
    )
    max_tokens: int = Field(default=DEFAULT.tokens, ge=100, description="Most tokens that a GraphQL document may have.")
    max_depth: int = Field(default=DEFAULT.depth, ge=1, description="Most levels that an operation may be deep.")
    max_fields: int = Field(
        default=DEFAULT.fields, ge=1, description="Most fields that an operation may select, fragments spread out."
    )
    max_aliases: int = Field(default=DEFAULT.aliases, ge=0, description="Most aliases that an operation may have.")
    max_root_fields: int = Field(default=DEFAULT.root_fields, ge=1, description="Most root fields of an operation.")
    max_directives: int = Field(default=DEFAULT.directives, ge=0, description="Most directives in an operation.")
    max_cost: int = Field(
        default=DEFAULT.cost,
        ge=1,
        description="Most objects that an operation may ask for, lists counted by their size; the header "
        "`GraphQL-Cost: true` has an answer say its cost.",
    )
    trusted_documents: Path | None = Field(
        default=None,
        description="A JSON file with the documents of your own frontends: an object from SHA-256 (hexadecimal) to "
        "document.",
    )
    trusted_documents_mode: Literal["off", "prefer", "require"] = Field(
        default="off",
        description="off: clients send documents; prefer: they may send the hash of one in TRUSTED_DOCUMENTS instead; "
        "require: no other document is run.",
    )
    max_body_bytes: int = Field(
        default=4_000_000,
        ge=10_000,
        le=100_000_000,
        description="Largest request body and WebSocket message, in bytes. 1,000 usage events fit the default.",
    )

    time_zone: str = Field(
        default="UTC",
        description="Time zone of the company, an IANA name like Europe/Berlin: whose days usage and runs are counted "
        "by. After a change run `rebuild usage` and `rebuild runs`.",
    )
    token_usage_threshold: int = Field(
        default=100_000,
        ge=0,
        le=2**53 - 1,
        description="Total tokens past which an agent raises an alert, by the rule that exists from the start.",
    )
    notification_cooldown_hours: float = Field(
        default=24.0, gt=0, le=8760, description="Hours until that rule speaks again for the same agent."
    )
    max_message_depth: int = Field(
        default=32, ge=1, le=1000, description="Most messages that may stand before one in its chain of answers."
    )
    message_lease_seconds: float = Field(
        default=30.0, ge=0.5, le=3600, description="Seconds that a message may be held before it is handed out again."
    )
    message_attempts: int = Field(
        default=5, ge=1, le=100, description="How often a message is handed out before it is given up."
    )
    message_retry_seconds: float = Field(
        default=1.0, ge=0.01, le=60, description="Seconds until a failed message comes again; doubled each time, to 60."
    )
    default_thread_tokens: int = Field(
        default=100_000,
        ge=1,
        le=MOST_TOKENS,
        description="Tokens that may be spent in a thread, unless it is given a limit of its own.",
    )
    mailgun_api_key: SecretStr | None = Field(
        default=None, description="Mailgun's API key. Without it and MAILGUN_DOMAIN no e-mail is sent."
    )
    mailgun_domain: str | None = Field(default=None, description="The sending domain at Mailgun.")
    mailgun_from_email: str | None = Field(
        default=None, description="Sender of e-mails; AgentHub <noreply@{MAILGUN_DOMAIN}> when not set."
    )
    mailgun_base_url: str = Field(
        default="https://api.mailgun.net",
        pattern=r"^https?://",
        description="Mailgun's API; https://api.eu.mailgun.net for its European region.",
    )
    webhooks_to_private_addresses: bool = Field(
        default=False,
        description="Whether webhooks may go to loopback, private and link-local addresses, for receivers on your own "
        "network.",
    )

    organism_file: Path | None = Field(
        default=None,
        description="A YAML file that declares the organism: agents, capabilities, default budget, alert rules. It is "
        "applied at start, by `reloadOrganism` and on SIGHUP.",
    )
    run_retention_days: int | None = Field(
        default=None,
        ge=7,
        le=36_500,
        description="Days for which single runs are kept, 7 or more; what they came to stays. All are kept without it.",
    )
    background_work: bool = Field(
        default=True,
        description="Whether those who serve also send messages and remove old runs; false leaves it to "
        "`agenthub worker`.",
    )

    metrics: bool = Field(default=False, description="Whether /metrics answers Prometheus.")
    metrics_token: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="What Prometheus has to send as a Bearer token, 16 characters or more; without it /metrics is open "
        "to everyone who can reach it.",
    )
    otel_exporter_otlp_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="Where traces go: a collector of OTLP over HTTP, like http://localhost:4318. None without it.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least weighty log line: debug (with a line per request), info, warning or error."
    )

    @field_validator("allowed_origins", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(each.strip() for each in value.split(",") if each.strip())

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            try:
                ip_network(network)
            except ValueError:
                raise ValueError("each is an address like 10.0.0.2 or a network like 10.0.0.0/8") from None
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        value = tuple(origin.rstrip("/").lower() for origin in value)
        for origin in value:
            scheme, separator, host = origin.partition("://")
            if scheme not in {"http", "https"} or not separator or not host or set(host) & set("/*?# @"):
                raise ValueError("each is a scheme and a host, like https://hub.example.com, without a path or *")
        return value

    @field_validator("time_zone")
    @classmethod
    def _is_known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("there is no such time zone; an IANA name is expected, like Europe/Berlin") from None
        return value

    @field_validator(
        "mongodb_uri", "secret_key", "secret_key_file", "secret_key_older", "admin_email", "admin_password",
        "trusted_documents", "otel_exporter_otlp_endpoint", "metrics_token", "organism_file",
        "mailgun_api_key",
        "mailgun_domain", "mailgun_from_email", "run_retention_days",
        mode="before",
    )  # fmt: skip
    @classmethod
    def _empty_is_absent(cls, value: object) -> object:
        # Compose files and shells pass on variables that nobody set as empty ones.
        return None if value == "" else value

    @model_validator(mode="before")
    @classmethod
    def _demo_opens(cls, values: Any) -> Any:  # noqa: ANN401  # whatever the sources gave
        if str(values.get("demo", "")).lower() in {"1", "true", "yes", "on", "t", "y"}:
            return {"introspection": True, "playground": True} | values
        return values

    def shown(self) -> list[dict[str, Any]]:
        """Give all settings as operators may see them."""
        return [
            {
                "name": name.upper(),
                "value": _shown(value := getattr(self, name)),
                "secret": "SecretStr" in str(field.annotation),
                "given": value is not None and value != (),
                "description": field.description or "",
            }
            for name, field in type(self).model_fields.items()
        ]

    @property
    def limits(self) -> Limits:
        """The most that one operation may ask for."""
        return Limits(
            length=self.max_query_length,
            tokens=self.max_tokens,
            depth=self.max_depth,
            fields=self.max_fields,
            aliases=self.max_aliases,
            root_fields=self.max_root_fields,
            directives=self.max_directives,
            cost=self.max_cost,
        )

    @property
    def terms(self) -> Terms:
        """How messages are sent and delivered."""
        return Terms(
            depth=self.max_message_depth,
            thread_tokens=self.default_thread_tokens,
            lease_ms=round(self.message_lease_seconds * 1000),
            attempts=self.message_attempts,
            pause_ms=round(self.message_retry_seconds * 1000),
        )

    @property
    def zone(self) -> ZoneInfo:
        """The company's time zone."""
        return ZoneInfo(self.time_zone)

    @property
    def sender(self) -> str:
        """Who e-mails come from."""
        return self.mailgun_from_email or f"AgentHub <noreply@{self.mailgun_domain}>"

    @property
    def older_keys(self) -> tuple[str, ...]:
        """Former signing keys, whose tokens are still good."""
        given = self.secret_key_older.get_secret_value() if self.secret_key_older else ""
        return tuple(key.strip() for key in given.split(",") if key.strip())

    def signing_key(self) -> str:
        """Give the key that signs tokens; in demo mode make one where none is set, and keep it.

        Raises `Refused` for a missing, short or well-known one outside demo mode.
        """
        key = self._given_key()
        if self.demo:
            return key or secret_key.kept(self.data_dir / "secret.key")
        return secret_key.checked(key)

    def _given_key(self) -> str | None:
        if self.secret_key:
            return self.secret_key.get_secret_value()
        if self.secret_key_file is None:
            return None
        try:
            return self.secret_key_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise Refused(f"SECRET_KEY_FILE cannot be read: {reason}.") from None


def load() -> Settings:
    """Read the environment. Raises `Refused` with one line that names the first variable that is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        message = fault["msg"].removeprefix("Value error, ")
        name = str(fault["loc"][0]).upper() if fault["loc"] else ""
        raise Refused(f"{name}: {message}." if name else f"{message}.") from None


def _shown(value: object) -> str | None:
    if value is None or value == () or isinstance(value, SecretStr):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    values = value if isinstance(value, tuple) else (str(value),)
    return ", ".join(without_secrets(each) if "://" in each else each for each in values)
