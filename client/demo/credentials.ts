/**
 * What stands behind the page's address, `#token=...` or `#resume=...`: browsers send the fragment to nobody. It is taken out of the address bar
 * at once, so that a screenshot or a copied address does not give it away, and kept until the tab is closed, so that a reload finds it.
 */

const KEY = 'token';
const fragment = new URLSearchParams(location.hash.slice(1));
if (location.hash !== '') {
	history.replaceState(null, '', location.pathname + location.search);
}
// Typed behind the address of a page that is open already.
addEventListener('hashchange', () => location.reload());

const given = fragment.get(KEY);
if (given !== null) {
	sessionStorage.setItem(KEY, given);
}

/** A server key, client secret or shared token; `undefined` where the server asks for none. */
export const token = (): string | undefined => sessionStorage.getItem(KEY) ?? undefined;

export const setToken = (value: string): void => sessionStorage.setItem(KEY, value);

/** The session to go on with: that of a fork. Once. */
export const takeResumeToken = (): string | undefined => {
	const value = fragment.get('resume') ?? undefined;
	fragment.delete('resume');
	return value;
};
