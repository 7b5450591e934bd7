/** Whether each TURN server of a list relays for whoever has these credentials. */
import { fine, wrong, type Finding } from '../../protocol/diagnoses.js';
import type { ProbeServers } from '../../transport/probe.js';
import { tryTurn } from '../../transport/turn-probe.js';

/** One finding for each address of a TURN server; that there is none, when there is none. */
export const examineTurn = async (servers: ProbeServers, patienceMs: number): Promise<Finding[]> => {
	const addresses = servers.flatMap(({ urls, username = '', credential = '' }) => urls.filter((url) => url.startsWith('turn')).map((url) => ({ url, username, credential })));
	if (addresses.length === 0) {
		return [wrong('turn_missing', {}, 'doubtful')];
	}
	return Promise.all(addresses.map(async ({ url, username, credential }) => {
		const outcome = await tryTurn(url, username, credential, patienceMs);
		switch (outcome.kind) {
			case 'relays':
				return fine('turn', `The TURN server ${url} relays.`);
			case 'refuses':
				return wrong('turn_refused', { url, why: outcome.why });
			case 'silent':
				return wrong('turn_unreached', { url });
		}
	}));
};
