/**
 * Names of tensors: the same networks are published under different ones. Each naming is a list of rules that turn a name into that of
 * the original state dict, which is what the graphs ask for.
 */

export const COMPONENTS = ['dit', 'text', 'vae', 'taehv'] as const;
export type Component = (typeof COMPONENTS)[number];

type Rule = readonly [pattern: RegExp, name: string];

export type Naming = {
	readonly component: Component;
	/** How people call it. */
	readonly title: string;
	/** Tensors that only this naming has; all of them must be there. */
	readonly marks: readonly RegExp[];
	readonly rules: readonly Rule[];
	/** Tensors that are known and not needed, such as a second copy. */
	readonly ignored?: RegExp;
};

const diffusersDit: readonly Rule[] = [
	[/^condition_embedder\.text_embedder\.linear_1\./u, 'text_embedding.0.'],
	[/^condition_embedder\.text_embedder\.linear_2\./u, 'text_embedding.2.'],
	[/^condition_embedder\.time_embedder\.linear_1\./u, 'time_embedding.0.'],
	[/^condition_embedder\.time_embedder\.linear_2\./u, 'time_embedding.2.'],
	[/^condition_embedder\.time_proj\./u, 'time_projection.1.'],
	[/^(blocks\.\d+)\.scale_shift_table$/u, '$1.modulation'],
	[/^(blocks\.\d+)\.attn1\.to_out\.0\./u, '$1.self_attn.o.'],
	[/^(blocks\.\d+)\.attn1\.to_([qkv])\./u, '$1.self_attn.$2.'],
	[/^(blocks\.\d+)\.attn1\.norm_([qk])\./u, '$1.self_attn.norm_$2.'],
	[/^(blocks\.\d+)\.attn2\.to_out\.0\./u, '$1.cross_attn.o.'],
	[/^(blocks\.\d+)\.attn2\.to_([qkv])\./u, '$1.cross_attn.$2.'],
	[/^(blocks\.\d+)\.attn2\.norm_([qk])\./u, '$1.cross_attn.norm_$2.'],
	// The norm before cross-attention is the second in the order of running, and the third in Wan's own naming.
	[/^(blocks\.\d+)\.norm2\./u, '$1.norm3.'],
	[/^(blocks\.\d+)\.ffn\.net\.0\.proj\./u, '$1.ffn.0.'],
	[/^(blocks\.\d+)\.ffn\.net\.2\./u, '$1.ffn.2.'],
	[/^proj_out\./u, 'head.head.'],
	[/^scale_shift_table$/u, 'head.modulation'],
];

const huggingFaceText: readonly Rule[] = [
	[/^shared\./u, 'token_embedding.'],
	[/^encoder\.embed_tokens\./u, 'token_embedding.'],
	[/^encoder\.block\.(\d+)\.layer\.0\.layer_norm\./u, 'blocks.$1.norm1.'],
	[/^encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.([qkvo])\./u, 'blocks.$1.attn.$2.'],
	[/^encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.relative_attention_bias\./u, 'blocks.$1.pos_embedding.embedding.'],
	[/^encoder\.block\.(\d+)\.layer\.1\.layer_norm\./u, 'blocks.$1.norm2.'],
	[/^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wi_0\./u, 'blocks.$1.ffn.gate.0.'],
	[/^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wi_1\./u, 'blocks.$1.ffn.fc1.'],
	[/^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wo\./u, 'blocks.$1.ffn.fc2.'],
	[/^encoder\.final_layer_norm\./u, 'norm.'],
];

const RESIDUAL_PARTS: readonly (readonly [string, string])[] = [
	['norm1.gamma', 'residual.0.gamma'], ['conv1.', 'residual.2.'], ['norm2.gamma', 'residual.3.gamma'], ['conv2.', 'residual.6.'], ['conv_shortcut.', 'shortcut.'],
];

const escaped = (text: string): string => text.replace(/\./gu, '\\.');

const residualRules = (from: string, to: string): Rule[] =>
	RESIDUAL_PARTS.map(([theirs, ours]): Rule => [new RegExp(`^${from}\\.${escaped(theirs)}`, 'u'), `${to}.${ours}`]);

/** A level of the decoder: residual blocks and an upsampling, which the original counts through. */
const upBlockRules = (level: number, blocks: number): Rule[] => {
	const first = level * (blocks + 1);
	return [
		...Array.from({ length: blocks }, (_, block) => residualRules(`decoder\\.up_blocks\\.${level}\\.resnets\\.${block}`, `decoder.upsamples.${first + block}`)).flat(),
		[new RegExp(`^decoder\\.up_blocks\\.${level}\\.upsamplers\\.0\\.`, 'u'), `decoder.upsamples.${first + blocks}.`],
	];
};

const diffusersVae = (names: readonly string[]): Rule[] => {
	const places = names.flatMap((name) => {
		const [, level, block] = /^decoder\.up_blocks\.(\d{1,2})\.resnets\.(\d{1,2})\./u.exec(name) ?? [];
		return level === undefined ? [] : [[Number(level), Number(block)] as const];
	});
	const levels = 1 + Math.max(0, ...places.map(([level]) => level));
	const blocks = 1 + Math.max(0, ...places.map(([, block]) => block));
	return [
		...['encoder', 'decoder'].flatMap((part): Rule[] => [
			[new RegExp(`^${part}\\.conv_in\\.`, 'u'), `${part}.conv1.`],
			[new RegExp(`^${part}\\.norm_out\\.`, 'u'), `${part}.head.0.`],
			[new RegExp(`^${part}\\.conv_out\\.`, 'u'), `${part}.head.2.`],
			...residualRules(`${part}\\.mid_block\\.resnets\\.0`, `${part}.middle.0`),
			...residualRules(`${part}\\.mid_block\\.resnets\\.1`, `${part}.middle.2`),
			[new RegExp(`^${part}\\.mid_block\\.attentions\\.0\\.`, 'u'), `${part}.middle.1.`],
		]),
		...residualRules('encoder\\.down_blocks\\.(\\d+)', 'encoder.downsamples.$1'),
		[/^encoder\.down_blocks\.(\d+)\./u, 'encoder.downsamples.$1.'],
		...Array.from({ length: levels }, (_, level) => upBlockRules(level, blocks)).flat(),
		[/^quant_conv\./u, 'conv1.'],
		[/^post_quant_conv\./u, 'conv2.'],
	];
};

/** The first whose marks are all there is the one; some rules depend on the names. */
const namings = (names: readonly string[]): readonly Naming[] => [
	{ component: 'dit', title: 'Wan DiT', marks: [/^patch_embedding\.weight$/u, /^blocks\.0\.self_attn\.norm_q\.weight$/u], rules: [] },
	{ component: 'dit', title: 'Wan DiT, diffusers naming', marks: [/^condition_embedder\./u, /^blocks\.0\.attn1\./u], rules: diffusersDit },
	{ component: 'text', title: 'umT5 encoder', marks: [/^token_embedding\.weight$/u, /^blocks\.0\.pos_embedding\.embedding\.weight$/u], rules: [] },
	{
		component: 'text', title: 'umT5 encoder, Hugging Face naming', marks: [/^encoder\.block\.0\.layer\.0\.SelfAttention\.q\.weight$/u], rules: huggingFaceText,
		ignored: names.includes('shared.weight') ? /^(?:encoder\.embed_tokens\.|decoder\.|lm_head\.)/u : /^(?:decoder\.|lm_head\.)/u,
	},
	{ component: 'vae', title: 'Wan VAE', marks: [/^decoder\.upsamples\./u, /^decoder\.middle\./u], rules: [] },
	{ component: 'vae', title: 'Wan VAE, diffusers naming', marks: [/^decoder\.up_blocks\./u, /^decoder\.mid_block\./u], rules: diffusersVae(names) },
	{ component: 'taehv', title: 'TAEHV', marks: [/^decoder\.1\.weight$/u, /^decoder\.3\.conv\.0\.weight$/u], rules: [], ignored: /^encoder\./u },
];

/** Prefixes that wrappers put before every name (rCM, Self-Forcing, DDP, ComfyUI), outermost first. */
const PREFIXES = ['model.diffusion_model.', 'net.', 'model.', 'module.', 'generator.', 'taehv.'];
/** What wrappers put into the middle of names. */
const INFIXES = /(?:_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod)\./gu;

const withoutPrefixes = (names: readonly string[]): ReadonlyMap<string, string> => {
	let pairs = names.map((name): [string, string] => [name, name.replace(INFIXES, '')]);
	for (;;) {
		const prefix = PREFIXES.find((candidate) => pairs.length > 0 && pairs.every(([, name]) => name.startsWith(candidate)));
		if (prefix === undefined) {
			return new Map(pairs);
		}
		pairs = pairs.map(([full, name]) => [full, name.slice(prefix.length)]);
	}
};

export type NamedTensors = {
	readonly component: Component;
	readonly title: string;
	/** Original name by the name in the file. */
	readonly names: ReadonlyMap<string, string>;
	/** Names in the file that are known and left out. */
	readonly ignored: readonly string[];
};

const rename = (rules: readonly Rule[], name: string): string => {
	const [pattern, replacement] = rules.find(([candidate]) => candidate.test(name)) ?? [];
	return pattern === undefined || replacement === undefined ? name : name.replace(pattern, replacement);
};

/** What the names of a file's tensors say it is; `undefined` when they say nothing. */
export const recogniseNames = (fileNames: readonly string[]): NamedTensors | undefined => {
	const stripped = withoutPrefixes(fileNames);
	const short = [...stripped.values()];
	const naming = namings(short).find(({ marks }) => marks.every((mark) => short.some((name) => mark.test(name))));
	if (naming === undefined) {
		return undefined;
	}
	const isIgnored = (name: string): boolean => naming.ignored?.test(name) === true;
	return {
		component: naming.component, title: naming.title,
		names: new Map([...stripped].filter(([, name]) => !isIgnored(name)).map(([full, name]) => [full, rename(naming.rules, name)])),
		ignored: [...stripped].filter(([, name]) => isIgnored(name)).map(([full]) => full),
	};
};
