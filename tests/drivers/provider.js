// A certified OpenID Connect provider (npm oidc-provider) with its own login form: whoever types a name is that person.
// Usage: node provider.js PORT SECRET-FILE REDIRECT-URI
const Provider = require("oidc-provider").default ?? require("oidc-provider");
const { readFileSync } = require("fs");

process.stdout.on("error", () => {}); // whoever started it reads one line
const [port, secret, redirect] = process.argv.slice(2);
const client = { client_id: "ringfence", client_secret: readFileSync(secret, "utf8").trim(), redirect_uris: [redirect], grant_types: ["authorization_code"], response_types: ["code"] };
const provider = new Provider(`http://localhost:${port}`, {
  clients: [client, { ...client, client_id: "another" }],
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, preferred_username: id, email: `${id}@example.org`, email_verified: true }) }),
  claims: { profile: ["preferred_username"], email: ["email", "email_verified"] },
  pkce: { required: () => true },
});
provider.listen(Number(port), "127.0.0.1", () => console.log("ready"));
