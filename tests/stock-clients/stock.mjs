// Stock OAuth clients for Node, each as its users use it, with the hub as their token endpoint.
//
//   node stock.mjs LIBRARY TOKEN_ENDPOINT REFRESH_TOKEN RESOURCE
//
// Holds a stale access token, asks for the resource, and prints what the library holds afterwards:
// {"status": 200, "access_token": "...", "refresh_token": "..."}
const LIBRARIES = {
  async 'openid-client'(endpoint, refreshToken, resource) {
    const oidc = await import('openid-client');
    const server = { issuer: new URL(endpoint).origin, token_endpoint: endpoint };
    const config = new oidc.Configuration(server, 'stock', undefined, oidc.None());
    oidc.allowInsecureRequests(config); // loopback, plain HTTP
    const token = await oidc.refreshTokenGrant(config, refreshToken);
    const { status } = await oidc.fetchProtectedResource(config, token.access_token, new URL(resource), 'GET');
    return { status, access_token: token.access_token, refresh_token: token.refresh_token };
  },

  async 'simple-oauth2'(endpoint, refreshToken, resource) {
    const { AuthorizationCode } = await import('simple-oauth2');
    const { origin, pathname } = new URL(endpoint);
    const client = new AuthorizationCode({
      client: { id: 'stock', secret: 'secret' },
      auth: { tokenHost: origin, tokenPath: pathname },
    });
    let held = client.createToken({ access_token: 'stale', refresh_token: refreshToken, expires_in: -30 });
    if (held.expired()) held = await held.refresh();
    const { access_token, refresh_token } = held.token;
    const { status } = await fetch(resource, { headers: { authorization: `Bearer ${access_token}` } });
    return { status, access_token, refresh_token };
  },
};

const [library, ...rest] = process.argv.slice(2);
console.log(JSON.stringify(await LIBRARIES[library](...rest)));
