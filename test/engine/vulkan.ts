/** Which graphics card tests of WebGPU use: the one that is set up, or SwiftShader, software Vulkan that comes with Debian's chromium. */
import { existsSync } from 'node:fs';

const SWIFTSHADER = '/usr/lib/chromium/vk_swiftshader_icd.json';

/**
 * Makes software Vulkan known to this process, unless a driver is named already. Returns why tests must be skipped, or false. Where `CI` is set nothing
 * is skipped: tests then fail for want of a driver.
 */
export const prepareVulkan = (): string | false => {
	if (process.env['VK_ICD_FILENAMES'] === undefined && existsSync(SWIFTSHADER)) {
		process.env['VK_ICD_FILENAMES'] = SWIFTSHADER;
	}
	return process.env['VK_ICD_FILENAMES'] !== undefined || process.env['CI'] !== undefined
		? false
		: `there is no Vulkan driver: install chromium, which brings SwiftShader (${SWIFTSHADER}), or set VK_ICD_FILENAMES`;
};
