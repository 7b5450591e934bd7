/** What a device is called, as far as this machine says. */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import type { ProfileDevice } from '../engine/profile.js';

export type Card = {
	readonly name: string;
	readonly driver: string;
	/** Of the card's own; undefined where nobody tells. */
	readonly memoryBytes?: number | undefined;
};

const UNKNOWN = 'unknown';

const processor = (): Card => ({ name: `${cpus().length} x ${cpus()[0]?.model.trim() ?? UNKNOWN}`, driver: 'none' });

/** NVIDIA's own tool, which comes with the driver. */
const nvidia = (): Card | undefined => {
	try {
		const [line = ''] = execFileSync('nvidia-smi', ['--query-gpu=name,driver_version,memory.total', '--format=csv,noheader,nounits'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'], timeout: 10_000 }).split('\n');
		const [name, driver, megabytes] = line.split(',').map((part) => part.trim());
		return name === undefined || driver === undefined ? undefined : { name, driver, memoryBytes: Number(megabytes) * 1024 * 1024 };
	} catch {
		return undefined;
	}
};

/** A driver that the Vulkan loader was told to take. */
const namedVulkan = (path: string): Card => {
	try {
		const { ICD } = JSON.parse(readFileSync(path, 'utf8')) as { ICD?: { library_path?: string; api_version?: string } };
		return { name: ICD?.library_path?.includes('swiftshader') === true ? 'SwiftShader (software)' : UNKNOWN, driver: `${ICD?.library_path ?? path}, Vulkan ${ICD?.api_version ?? UNKNOWN}` };
	} catch {
		return { name: UNKNOWN, driver: path };
	}
};

/** The first render node of the kernel: ids of PCI, and the name of its driver. */
const renderNode = (): Card | undefined => {
	const root = '/sys/class/drm';
	const node = existsSync(root) ? readdirSync(root).find((name) => name.startsWith('renderD')) : undefined;
	if (node === undefined) {
		return undefined;
	}
	const read = (file: string): string => {
		try {
			return readFileSync(join(root, node, 'device', file), 'utf8');
		} catch {
			return '';
		}
	};
	const uevent = read('uevent');
	return { name: `PCI ${/PCI_ID=(\S+)/u.exec(uevent)?.[1] ?? UNKNOWN}`, driver: /DRIVER=(\S+)/u.exec(uevent)?.[1] ?? UNKNOWN };
};

export const cardOf = (device: ProfileDevice, environment: { readonly [name: string]: string | undefined } = process.env): Card => {
	if (device === 'cpu') {
		return processor();
	}
	const named = environment['VK_DRIVER_FILES'] ?? environment['VK_ICD_FILENAMES'];
	if (device === 'webgpu' && named !== undefined) {
		return namedVulkan(named);
	}
	return nvidia() ?? renderNode() ?? { name: UNKNOWN, driver: UNKNOWN };
};
