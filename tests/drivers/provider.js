// A certified OpenID Connect provider (npm oidc-provider) with its own login form: whoever types a name is that person. `ann~2` is another
// account by the name of ann. When somebody logged in (auth_time) it says where it is asked to, as its default is.
// Usage: node provider.js PORT SECRET-FILE REDIRECT-URI
const Provider = require("oidc-provider").default ?? require("oidc-provider");
const { readFileSync } = require("fs");

process.stdout.on("error", () => {}); // whoever started it reads one line
const [port, secret, redirect] = process.argv.slice(2);
const logout = new URL("/backchannel-logout", redirect).href;
const client = { client_id: "ringfence", client_secret: readFileSync(secret, "utf8").trim(), redirect_uris: [redirect], grant_types: ["authorization_code"], response_types: ["code"], backchannel_logout_uri: logout };
const cli = {
  client_id: "ringfence-cli",
  application_type: "native",
  token_endpoint_auth_method: "none",
  redirect_uris: ["http://127.0.0.1/"],
  grant_types: ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
  response_types: ["code"],
  backchannel_logout_uri: logout,
};
const provider = new Provider(`http://localhost:${port}`, {
  clients: [client, { ...client, client_id: "another" }, cli, { ...cli, client_id: "another-cli" }],
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, preferred_username: id.split("~")[0], email: `${id}@example.org`, email_verified: true }) }),
  claims: { profile: ["preferred_username"], email: ["email", "email_verified"] },
  features: { deviceFlow: { enabled: true }, claimsParameter: { enabled: true }, backchannelLogout: { enabled: true } },
  pkce: { required: () => true },
});
provider.listen(Number(port), "127.0.0.1", () => console.log("ready"));
